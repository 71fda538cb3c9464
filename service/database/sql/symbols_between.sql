-- $1 a portfolio or null, $2 a portfolio.
-- The symbols of the portfolios after $1 and up to $2, with the symbols' hashes.
select distinct symbol, hashtextextended(symbol, 0) as number
from public.position
where ($1::uuid is null or portfolio_id > $1) and portfolio_id <= $2
