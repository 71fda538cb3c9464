-- The run of the latest session, for each job.
select distinct on (job)
    job, session_date, status, cursor_date, cursor_portfolio, skipped, rows_written, rows_added, rows_changed, attempts,
    error, holder, token, started_at, updated_at, finished_at
from public.job_run
order by job, session_date desc
