-- $1 lease, $2 token, $3 holder.
-- One row if the term is the newest, now or already. No row if a newer term is stored. No row either if the token, a
-- time in microseconds, is more than a day ahead of the database's clock: it would lock out every later term.
insert into public.lease_fence as fence (lease, token, holder)
select $1, $2::bigint, $3
where $2::bigint <= extract(epoch from clock_timestamp()) * 1000000 + 86400000000
on conflict (lease) do update
    set token = excluded.token,
        holder = excluded.holder,
        taken_at = case when fence.token = excluded.token then fence.taken_at else now() end
    where excluded.token > fence.token
        or (excluded.token = fence.token and excluded.holder = fence.holder)
returning token
