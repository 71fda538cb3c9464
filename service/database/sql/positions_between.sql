-- $1 date, $2 a portfolio or null, $3 a portfolio, $4 the seed of the hash.
-- The positions on that date of the portfolios after $2 and up to $3. Closed positions (0 units) are
-- included. The order is the reverse of the key, so that the first row of a symbol is its last entry. This is an
-- index-only scan without a sort. A symbol is returned as a hash, so that every position has the same length. The
-- positions of a portfolio are one value, which takes a third of the bytes that a row for each position would take.
select portfolio_id, string_agg(int8send(hashtextextended(symbol, $4)) || int8send(units), ''::bytea)
from (
    select distinct on (portfolio_id, symbol) portfolio_id, symbol, units
    from public.position
    where ($2::uuid is null or portfolio_id > $2) and portfolio_id <= $3::uuid and valid_from <= $1::date
    order by portfolio_id desc, symbol desc, valid_from desc
) as held
group by portfolio_id
order by portfolio_id desc
