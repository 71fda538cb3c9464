-- $1 date, $2 the last portfolio done or null, $3 kind, $4 whether only those without a history row, $5 limit. The next
-- portfolios, in key order, that had opened a position by that date, with what they held then.
with chunk as (
    select portfolio.id
    from portfolio
    where ($2::uuid is null or portfolio.id > $2)
        and exists (select from position where portfolio_id = portfolio.id and valid_from <= $1)
        and not (
            $4 and exists (
                select from portfolio_history where portfolio_id = portfolio.id and date = $1 and kind = $3
            )
        )
    order by portfolio.id
    limit $5
),
held as (
    select distinct on (portfolio_id, symbol) portfolio_id, symbol, quantity
    from position
    where portfolio_id in (select id from chunk) and valid_from <= $1
    order by portfolio_id, symbol, valid_from desc
)
select
    held.portfolio_id as id,
    coalesce(array_agg(held.symbol) filter (where held.quantity <> 0), '{}') as symbols,
    coalesce(array_agg(held.quantity) filter (where held.quantity <> 0), '{}') as quantities
from held
group by held.portfolio_id
order by held.portfolio_id
