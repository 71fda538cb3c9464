-- The data that the leader writes: live values, intraday values, daily history, and the prices from which they are
-- computed. `token` is the fencing token of the term that wrote the row.

-- Half-filled pages leave room for the next version of each row, so that updates do not touch an index.
create table portfolio_live (
    portfolio_id uuid primary key references portfolio (id) on delete cascade,
    session_date date not null,
    as_of timestamptz not null,
    value numeric(38, 4), -- null: no position has a price
    day_open numeric(38, 4),
    day_high numeric(38, 4),
    day_low numeric(38, 4),
    priced_fraction numeric(5, 4) not null check (priced_fraction between 0 and 1), -- share of the positions that have a price
    stale boolean not null, -- whether a price was carried forward
    oldest_price_at timestamptz, -- oldest price in the value
    token bigint not null
) with (fillfactor = 50);

create table portfolio_intraday (
    portfolio_id uuid not null,
    session_date date not null,
    slot timestamptz not null, -- the tick's slot in the schedule
    value numeric(38, 4),
    priced_fraction numeric(5, 4) not null,
    stale boolean not null,
    token bigint not null,
    primary key (portfolio_id, session_date, slot)
) partition by range (session_date);

create table portfolio_history (
    portfolio_id uuid not null,
    date date not null,
    kind text not null check (kind in ('daily_eod')),
    value numeric(38, 4) not null,
    priced_fraction numeric(5, 4) not null check (priced_fraction between 0 and 1),
    stale boolean not null,
    origin text not null check (origin in ('captured', 'settled', 'reconstructed')),
    revision integer not null default 1 check (revision > 0),
    written_at timestamptz not null default now(),
    token bigint not null,
    primary key (portfolio_id, date, kind)
) partition by range (date);

-- The latest price of each held symbol, and its first price of the session. The next tick, or the next leader, carries
-- them forward.
create table price_live (
    symbol text primary key,
    price numeric(20, 6) not null check (price > 0 and price <> 'NaN'),
    at timestamptz not null,
    session_date date not null,
    open numeric(20, 6) not null check (open > 0 and open <> 'NaN'),
    token bigint not null
) with (fillfactor = 50);

create table price_eod (
    symbol text not null,
    session_date date not null,
    close numeric(20, 6) not null check (close > 0 and close <> 'NaN'),
    at timestamptz not null,
    token bigint, -- null: imported
    primary key (symbol, session_date)
);

-- Partitions have a schema of their own: no API serves it, and only the owner has rights in it.
create schema partitions;

create function make_partition(parent regclass, first date, next date) returns void language plpgsql as $$
declare
    partition_name text := format('%s_%s', (select relname from pg_class where oid = parent), to_char(first, 'YYYYMMDD'));
begin
    if to_regclass(format('partitions.%I', partition_name)) is not null then
        return;
    end if;
    perform pg_advisory_xact_lock(hashtext('make_partition'), hashtext(partition_name));
    if to_regclass(format('partitions.%I', partition_name)) is not null then
        return;
    end if;
    -- The partition is created as a separate table and then attached: this does not wait for the parent's readers.
    execute format('create table partitions.%I (like %s including all)', partition_name, parent);
    execute format('alter table partitions.%I enable row level security', partition_name);
    execute format(
        'alter table %s attach partition partitions.%I for values from (%L) to (%L)', parent, partition_name, first, next
    );
end
$$;

create function make_intraday_partition(day date) returns void language sql as $$
    select make_partition('public.portfolio_intraday', day, day + 1)
$$;

create function make_history_partition(day date) returns void language sql as $$
    select make_partition(
        'public.portfolio_history',
        date_trunc('month', day)::date,
        (date_trunc('month', day) + interval '1 month')::date
    )
$$;

-- Drops the days before `before`; returns their number.
create function drop_intraday_partitions(before date) returns integer language plpgsql as $$
declare
    partition_name text;
    dropped integer := 0;
begin
    for partition_name in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'public.portfolio_intraday'::regclass
            and c.relname < 'portfolio_intraday_' || to_char(before, 'YYYYMMDD')
    loop
        execute format('drop table partitions.%I', partition_name);
        dropped := dropped + 1;
    end loop;
    return dropped;
end
$$;

-- The two large tables have no foreign key, which would cost a look-up for each row written.
create function forget_portfolio_values() returns trigger language plpgsql as $$
begin
    delete from portfolio_intraday where portfolio_id in (select id from gone);
    delete from portfolio_history where portfolio_id in (select id from gone);
    return null;
end
$$;

create trigger forget_portfolio_values after delete on portfolio
    referencing old table as gone for each statement execute function forget_portfolio_values();
