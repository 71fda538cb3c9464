-- $1 job, $2 session date, $3 token, $4 cursor date, $5 cursor portfolio, $6 rows written, $7 rows added, $8 rows
-- changed.
-- The first step of a run counts the rows from 0. If the run is a rerun, the first step also makes it unfinished.
update public.job_run set
    status = 'running',
    finished_at = null,
    cursor_date = $4,
    cursor_portfolio = $5,
    skipped = array_remove(skipped, $4),
    rows_written = case when cursor_date is null then 0 else rows_written end + $6,
    rows_added = case when cursor_date is null then 0 else rows_added end + $7,
    rows_changed = case when cursor_date is null then 0 else rows_changed end + $8,
    error = null,
    updated_at = now()
where job = $1 and session_date = $2 and token = $3 and (status = 'running' or cursor_date is null)
