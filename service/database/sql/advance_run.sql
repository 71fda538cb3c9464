-- $1 job, $2 session date, $3 token, $4 cursor date, $5 cursor portfolio, $6 rows written, $7 rows added, $8 rows
-- changed.
update public.job_run set
    cursor_date = $4,
    cursor_portfolio = $5,
    skipped = array_remove(skipped, $4),
    rows_written = rows_written + $6,
    rows_added = rows_added + $7,
    rows_changed = rows_changed + $8,
    error = null,
    updated_at = now()
where job = $1 and session_date = $2 and token = $3 and status = 'running'
