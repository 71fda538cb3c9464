-- $1 job, $2 session date, $3 token.
update public.job_run set status = 'done', finished_at = now(), error = null, updated_at = now()
where job = $1 and session_date = $2 and token = $3 and status = 'running'
