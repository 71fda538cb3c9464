-- $1 lease. How far the newest term's load has come; none if it was not told of lately: whoever loaded may be gone.
select portfolios_done, portfolios
from public.position_loading
join public.lease_fence using (lease, token)
where lease = $1 and written_at > now() - interval '15 seconds'
