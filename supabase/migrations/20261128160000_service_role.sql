-- A role with exactly the rights that the service needs, for a login under row-level security: not the tables' owner,
-- not a superuser, without BYPASSRLS. An administrator creates a login with its password:
--   create role portfolio_api login password '...' in role portfolio_service;
do $$
begin
    if not exists (select from pg_roles where rolname = 'portfolio_service') then
        create role portfolio_service nologin;
    end if;
exception
    -- Roles belong to the whole server: another database's migration may have created it.
    when duplicate_object or unique_violation then null;
end
$$;

grant usage on schema public to portfolio_service;

-- Every table that the service uses. A later table needs the same grants.
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

-- Only the tables' owner can create and drop partitions. These functions do it for the service. With an empty
-- search_path, Postgres would find a temporary table or type of the caller before one of the catalog with the same
-- name, and would use it with the owner's rights. So the path names the catalog first and the caller's temporary schema
-- last.
alter function public.make_partition(regclass, date, date) set search_path = pg_catalog, pg_temp;
alter function public.make_intraday_partition(date) security definer set search_path = pg_catalog, pg_temp;
alter function public.make_history_partition(date) security definer set search_path = pg_catalog, pg_temp;
alter function public.drop_intraday_partitions(date) security definer set search_path = pg_catalog, pg_temp;
grant execute on function
    public.make_intraday_partition(date), public.make_history_partition(date), public.drop_intraday_partitions(date),
    public.hold_off_deletions(), public.unpriced_symbols(uuid, date)
to portfolio_service;
