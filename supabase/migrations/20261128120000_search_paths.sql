-- Every function sets its own search_path and qualifies every name. Otherwise a session with another search_path (a
-- default of a role or a pooler, or an empty one) would not find the tables, or would find others with the same name.

create or replace function public.make_partition(parent regclass, first date, next date) returns void
language plpgsql set search_path = '' as $$
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

create or replace function public.make_intraday_partition(day date) returns void
language sql set search_path = '' as $$
    select public.make_partition('public.portfolio_intraday', day, day + 1)
$$;

create or replace function public.make_history_partition(day date) returns void
language plpgsql set search_path = '' as $$
declare
    first date := date_trunc('month', day);
    next date := first + interval '1 month';
begin
    perform public.make_partition('public.portfolio_history', first, next);
    perform public.make_partition('public.portfolio_history_revision', first, next);
end
$$;

create or replace function public.drop_intraday_partitions(before date) returns integer
language plpgsql set search_path = '' as $$
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

-- The locks and their order: see 20261124180000_revisions.sql.
create or replace function public.forget_portfolio_values() returns trigger
language plpgsql set search_path = '' as $$
begin
    if not exists (select from gone) then
        return null;
    end if;
    lock table only public.portfolio_intraday, only public.portfolio_history in share row exclusive mode;
    delete from public.portfolio_intraday where portfolio_id in (select id from gone);
    delete from public.portfolio_history where portfolio_id in (select id from gone);
    delete from public.portfolio_history_revision where portfolio_id in (select id from gone);
    return null;
end
$$;

create or replace function public.hold_off_deletions() returns void
language sql set search_path = '' as $$
    select pg_advisory_xact_lock(hashtext('portfolio_live'), 0)
$$;

-- On a plain Postgres, auth.uid() was created by these migrations. On Supabase it belongs to Supabase and is not
-- changed.
do $$
begin
    if exists (
        select from pg_proc
        where oid = to_regprocedure('auth.uid()') and proowner = (select oid from pg_roles where rolname = current_user)
            and proconfig is null
    ) then
        alter function auth.uid() set search_path = '';
    end if;
end
$$;
