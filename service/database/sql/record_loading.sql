-- $1 lease, $2 token, $3 holder, $4 portfolios loaded, $5 portfolios in all.
-- One row if the term is the newest; the fence is checked as in enter_fence.sql.
insert into public.position_loading (lease, token, portfolios_done, portfolios)
select lease, token, $4::integer, $5::integer
from public.lease_fence
where lease = $1 and token = $2 and holder = $3
for share
on conflict (lease) do update
    set token = excluded.token,
        portfolios_done = excluded.portfolios_done,
        portfolios = excluded.portfolios,
        written_at = now()
returning token
