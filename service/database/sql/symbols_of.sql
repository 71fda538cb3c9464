-- $1 portfolios.
-- The symbols of these portfolios, with their hashes.
select distinct symbol, hashtextextended(symbol, 0) as number from public.position where portfolio_id = any($1)
