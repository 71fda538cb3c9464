-- The symbols that the price source refuses. The next leader, in any task, does not ask for them before `retry_at`:
-- each refusal costs a request, and many refusals cost the prices of other symbols.
create table public.symbol_refusal (
    symbol text primary key,
    refusals integer not null check (refusals > 0), -- consecutive
    refused_at timestamptz not null check (refused_at between '0001-01-02Z' and '9999-12-30Z'),
    retry_at timestamptz not null check (retry_at between '0001-01-02Z' and '9999-12-30Z'),
    token bigint not null
);

alter table public.symbol_refusal enable row level security;
revoke all on public.symbol_refusal from anon, authenticated;
grant all on public.symbol_refusal to service_role;

-- The symbols that a portfolio holds on that day without a price, at most 20, and the number of all of them. The
-- function's owner reads the prices, which a portfolio's owner may not read. A user gets only symbols of their own
-- portfolios.
create function public.unpriced_symbols(portfolio uuid, day date, out symbols text[], out count integer)
language sql stable security definer set search_path = '' as $$
    select
        coalesce((pg_catalog.array_agg(held.symbol order by held.symbol collate "C"))[1:20], '{}'),
        pg_catalog.count(*)::integer
    from (
        select distinct on (position.symbol) position.symbol, position.quantity
        from public.position as position
        where position.portfolio_id = portfolio and position.valid_from <= day
        order by position.symbol, position.valid_from desc
    ) as held
    where held.quantity <> 0
        and not exists (select from public.price_live as price where price.symbol = held.symbol)
        and exists (
            select from public.portfolio as owned
            where owned.id = portfolio
                and (
                    pg_catalog.current_setting('role') not in ('anon', 'authenticated')
                    or owned.user_id = (select auth.uid())
                )
        )
$$;
revoke all on function public.unpriced_symbols(uuid, date) from public, anon;
grant execute on function public.unpriced_symbols(uuid, date) to authenticated, service_role;
