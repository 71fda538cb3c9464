-- $1 job, $2 session date, $3 token, $4 a session without prices.
-- The cursor may pass the session; a later attempt returns to it.
update public.job_run set skipped = array_append(array_remove(skipped, $4), $4), updated_at = now()
where job = $1 and session_date = $2 and token = $3 and (status = 'running' or cursor_date is null)
