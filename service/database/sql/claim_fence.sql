-- $1 lease, $2 token, $3 holder.
-- One row if the term becomes the newest, or already is. No row if a newer term is stored, or if the token, a time in
-- microseconds, is more than a day ahead of the database's clock: such a token would lock out every later term.
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
