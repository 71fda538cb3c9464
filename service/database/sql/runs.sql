-- $1 session date.
-- The runs of that session and of later sessions.
select
    job, session_date, status, cursor_date, cursor_portfolio, skipped, rows_written, rows_added, rows_changed, attempts,
    error, holder, token, started_at, updated_at, finished_at
from public.job_run
where session_date >= $1
