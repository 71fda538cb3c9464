-- The values that a later revision replaced, and the numbers of rows that a run changed.

-- Former versions of rows of portfolio_history. A row is copied here when another value replaces its value. The newest
-- revision of a value is only in portfolio_history. A row that only became settled has no entry here.
create table portfolio_history_revision (
    portfolio_id uuid not null,
    date date not null,
    kind text not null,
    revision integer not null,
    value numeric(38, 4) not null,
    priced_fraction numeric(5, 4) not null,
    stale boolean not null,
    origin text not null,
    written_at timestamptz not null,
    token bigint not null,
    primary key (portfolio_id, date, kind, revision)
) partition by range (date);
alter table portfolio_history_revision enable row level security;
create policy owner_reads on portfolio_history_revision for select to authenticated
    using (portfolio_id in (select id from portfolio where user_id = (select auth.uid())));
revoke all on portfolio_history_revision from anon, authenticated;
grant select on portfolio_history_revision to authenticated;
grant all on portfolio_history_revision to service_role;

create or replace function make_history_partition(day date) returns void language plpgsql as $$
declare
    first date := date_trunc('month', day);
    next date := first + interval '1 month';
begin
    perform make_partition('public.portfolio_history', first, next);
    perform make_partition('public.portfolio_history_revision', first, next);
end
$$;

-- A writer that looked up a portfolio before its deletion would write values that nobody deletes. So no writer may
-- write from the moment at which the trigger deletes the values until the deletion commits. The locks wait for running
-- writers, and later writers look up portfolios after the commit. The tables are locked only after the rows of
-- portfolio_live have been deleted, because a tick locks in the same order: live values first.
create or replace function forget_portfolio_values() returns trigger language plpgsql as $$
begin
    if not exists (select from gone) then
        return null;
    end if;
    lock table only portfolio_intraday, only portfolio_history in share row exclusive mode;
    delete from portfolio_intraday where portfolio_id in (select id from gone);
    delete from portfolio_history where portfolio_id in (select id from gone);
    delete from portfolio_history_revision where portfolio_id in (select id from gone);
    return null;
end
$$;

-- If provisional is true, no source had the close: the column close contains the last price before the session's close,
-- and the column at contains the time of that price. The official close replaces both.
alter table price_eod
    add column provisional boolean not null default false,
    add check (token is not null or not provisional);

-- rows_written counts the added rows, the changed rows, and the rows that only became settled.
alter table job_run
    add column rows_added bigint not null default 0,
    add column rows_changed bigint not null default 0,
    add column skipped date[] not null default '{}'; -- sessions before cursor_date that had no prices; they are tried again
