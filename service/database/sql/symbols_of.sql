-- $1 portfolios.
-- The symbols of the portfolios, with the symbols' hashes.
select distinct symbol, hashtextextended(symbol, 0) as number from public.position where portfolio_id = any($1)
