-- $1 job, $2 session date, $3 token, $4 cursor date, $5 cursor portfolio, $6 rows written, $7 rows added, $8 rows
-- changed.
-- The first step of a rerun makes the run unfinished and counts its rows from 0.
update public.job_run set
    status = 'running',
    finished_at = null,
    cursor_date = $4,
    cursor_portfolio = $5,
    skipped = array_remove(skipped, $4),
    rows_written = case status when 'running' then rows_written else 0 end + $6,
    rows_added = case status when 'running' then rows_added else 0 end + $7,
    rows_changed = case status when 'running' then rows_changed else 0 end + $8,
    error = null,
    updated_at = now()
where job = $1 and session_date = $2 and token = $3 and (status = 'running' or cursor_date is null)
