-- The state of the work: which term may write, and the progress of each run.

-- The newest term of each lease that has claimed the fence. A transaction that writes holds the row of its lease FOR
-- SHARE.
create table lease_fence (
    lease text primary key,
    token bigint not null,
    holder text not null,
    taken_at timestamptz not null default now()
);

-- One row for each job and session; a run is never identified by the time at which it runs. The cursor records what is
-- committed: all sessions before cursor_date and, in the session of cursor_date, all portfolios up to cursor_portfolio.
-- If cursor_portfolio is null, only the prices of that session are committed.
create table job_run (
    job text not null check (job in ('eod', 'snapshot', 'reconstruction')),
    session_date date not null,
    status text not null check (status in ('running', 'done')),
    cursor_date date,
    cursor_portfolio uuid,
    rows_written bigint not null default 0,
    attempts integer not null default 1,
    error text, -- why the last attempt failed
    holder text not null,
    token bigint not null,
    started_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    finished_at timestamptz,
    primary key (job, session_date),
    check ((status = 'done') = (finished_at is not null))
);

-- Closures and odd hours that no calendar knew in advance. Both times null: no session on that day.
create table market_override (
    calendar text not null,
    session_date date not null,
    opens_at timestamptz,
    closes_at timestamptz,
    reason text not null,
    primary key (calendar, session_date),
    check ((opens_at is null) = (closes_at is null)),
    check (closes_at > opens_at)
);
