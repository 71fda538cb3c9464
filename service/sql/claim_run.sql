-- $1 job, $2 session date, $3 holder, $4 token. The run as it stands, now ours; no row if it is done.
insert into job_run as run (job, session_date, status, holder, token)
values ($1, $2, 'running', $3, $4)
on conflict (job, session_date) do update set
    holder = excluded.holder,
    token = excluded.token,
    attempts = run.attempts + 1,
    updated_at = now()
    where run.status <> 'done'
returning *
