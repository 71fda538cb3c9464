-- $1 lease. What the database has of its fence, and its own clock; no row before the first term has taken it up.
select
    token,
    holder,
    taken_at,
    clock_timestamp() as now,
    (extract(epoch from clock_timestamp()) * 1000000)::bigint as now_token
from public.lease_fence
where lease = $1
