-- $1 job, $2 session date, $3 token, $4 cursor date, $5 cursor portfolio, $6 rows written.
update job_run set
    cursor_date = $4, cursor_portfolio = $5, rows_written = rows_written + $6, error = null, updated_at = now()
where job = $1 and session_date = $2 and token = $3 and status = 'running'
