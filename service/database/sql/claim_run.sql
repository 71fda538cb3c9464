-- $1 job, $2 session date, $3 holder, $4 token, $5 whether to run a finished run again.
-- The run at its present cursor, claimed by this term. No row if the run is done, unless $5 is set. A run that is done
-- loses its cursor, but stays done until the rerun has prices (advance_run.sql): a rerun that fails changes no rows.
insert into public.job_run as run (job, session_date, status, holder, token)
values ($1, $2, 'running', $3, $4)
on conflict (job, session_date) do update set
    cursor_date = case run.status when 'running' then run.cursor_date end,
    cursor_portfolio = case run.status when 'running' then run.cursor_portfolio end,
    skipped = case run.status when 'running' then run.skipped else '{}' end,
    holder = excluded.holder,
    token = excluded.token,
    attempts = run.attempts + 1,
    updated_at = now()
    where run.status <> 'done' or $5
returning *
