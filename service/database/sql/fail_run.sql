-- $1 job, $2 session date, $3 token, $4 error.
update public.job_run set error = $4, updated_at = now()
where job = $1 and session_date = $2 and token = $3 and (status = 'running' or cursor_date is null)
