-- A role with the rights that the service needs and no others, for a login that row-level security covers: neither the
-- tables' owner, nor a superuser, nor BYPASSRLS. A login is made by hand, with its password:
--   create role portfolio_api login password '...' in role portfolio_service;
do $$
begin
    if not exists (select from pg_roles where rolname = 'portfolio_service') then
        create role portfolio_service nologin;
    end if;
exception
    -- Roles belong to the whole server: another database's migration was first.
    when duplicate_object or unique_violation then null;
end
$$;

grant usage on schema public to portfolio_service;

-- Every table that the service works with; a table that comes later needs the same.
do $$
declare
    table_name text;
begin
    foreach table_name in array array[
        'portfolio', 'position', 'position_change', 'position_loading', 'portfolio_live', 'portfolio_intraday',
        'portfolio_history', 'portfolio_history_revision', 'price_live', 'price_eod', 'lease_fence', 'job_run',
        'market_override', 'symbol_refusal'
    ] loop
        execute format('grant select, insert, update, delete on public.%I to portfolio_service', table_name);
        execute format(
            'create policy service_works on public.%I to portfolio_service using (true) with check (true)', table_name
        );
    end loop;
end
$$;

-- Partitions are made and dropped by the tables' owner only: these functions do it for the service. With an empty
-- search_path a temporary table or type of the caller's comes before the catalog's of the same name, and the owner would
-- use it; so the caller's temporary schema is named, last.
alter function public.make_partition(regclass, date, date) set search_path = pg_catalog, pg_temp;
alter function public.make_intraday_partition(date) security definer set search_path = pg_catalog, pg_temp;
alter function public.make_history_partition(date) security definer set search_path = pg_catalog, pg_temp;
alter function public.drop_intraday_partitions(date) security definer set search_path = pg_catalog, pg_temp;
grant execute on function
    public.make_intraday_partition(date), public.make_history_partition(date), public.drop_intraday_partitions(date),
    public.hold_off_deletions(), public.unpriced_symbols(uuid, date)
to portfolio_service;
