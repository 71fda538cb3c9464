-- $1 lease, $2 token, $3 holder. One row if the term is now, or already was, the newest; none if a newer one is.
insert into lease_fence as fence (lease, token, holder)
values ($1, $2, $3)
on conflict (lease) do update
    set token = excluded.token,
        holder = excluded.holder,
        taken_at = case when fence.token = excluded.token then fence.taken_at else now() end
    where excluded.token > fence.token
        or (excluded.token = fence.token and excluded.holder = fence.holder)
returning token
