-- $1 date. Every portfolio with what it holds on that date, in key order.
with held as (
    select distinct on (portfolio_id, symbol) portfolio_id, symbol, quantity
    from position
    where valid_from <= $1
    order by portfolio_id, symbol, valid_from desc
)
select
    portfolio.id,
    coalesce(array_agg(held.symbol) filter (where held.quantity <> 0), '{}') as symbols,
    coalesce(array_agg(held.quantity) filter (where held.quantity <> 0), '{}') as quantities
from portfolio
left join held on held.portfolio_id = portfolio.id
group by portfolio.id
order by portfolio.id
