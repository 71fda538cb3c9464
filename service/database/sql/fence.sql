-- $1 lease.
-- The stored fence and the database's clock. No row before any term has claimed the fence.
select
    token,
    holder,
    taken_at,
    clock_timestamp() as now,
    (extract(epoch from clock_timestamp()) * 1000000)::bigint as now_token
from public.lease_fence
where lease = $1
