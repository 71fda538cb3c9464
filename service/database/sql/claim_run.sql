-- $1 job, $2 session date, $3 holder, $4 token, $5 whether to begin the run again, even if it is done.
-- The run at its present cursor, claimed by this term. No row if the run is done, unless $5 is set. A run that begins
-- again loses its cursor. If the run is done, it stays done until its first step (advance_run.sql), so a rerun that gets
-- no prices changes no rows.
insert into public.job_run as run (job, session_date, status, holder, token)
values ($1, $2, 'running', $3, $4)
on conflict (job, session_date) do update set
    cursor_date = case when not $5 then run.cursor_date end,
    cursor_portfolio = case when not $5 then run.cursor_portfolio end,
    skipped = case when $5 then '{}' else run.skipped end,
    holder = excluded.holder,
    token = excluded.token,
    attempts = run.attempts + 1,
    updated_at = now()
    where run.status <> 'done' or $5
returning
    job, session_date, status, cursor_date, cursor_portfolio, skipped, rows_written, rows_added, rows_changed, attempts,
    error, holder, token, started_at, updated_at, finished_at
