-- $1 a portfolio or null, $2 a portfolio, $3 the seed of the hash.
-- The symbols of the portfolios after $1 and up to $2, with the symbols' hashes.
select distinct symbol, hashtextextended(symbol, $3) as number
from public.position
where ($1::uuid is null or portfolio_id > $1) and portfolio_id <= $2
