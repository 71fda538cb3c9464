-- $1 portfolios, $2 the seed of the hash.
-- The symbols of these portfolios, with their hashes.
select distinct symbol, hashtextextended(symbol, $2) as number from public.position where portfolio_id = any($1)
