-- $1 a portfolio or null, $2 a portfolio, $3 date, $4 kind, $5 whether a stale row counts as no row.
-- The portfolios after $1 and up to $2 that have no history row of that date and kind, in key order.
select id
from public.portfolio
where ($1::uuid is null or id > $1)
    and id <= $2::uuid
    and not exists (
        select from public.portfolio_history
        where portfolio_id = portfolio.id and date = $3::date and kind = $4::text and not ($5::boolean and stale)
    )
order by id
