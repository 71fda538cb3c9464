-- $1 lease.
-- The progress of the newest term's load. No row if the progress is old: the loading process may have ended.
select portfolios_done, portfolios
from public.position_loading
join public.lease_fence using (lease, token)
where lease = $1 and written_at > now() - interval '15 seconds'
