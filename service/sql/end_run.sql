-- $1 job, $2 session date, $3 token, $4 error or null. Without an error the run is done.
update job_run set
    status = case when $4::text is null then 'done' else 'running' end,
    finished_at = case when $4::text is null then now() end,
    error = $4,
    updated_at = now()
where job = $1 and session_date = $2 and token = $3 and status = 'running'
