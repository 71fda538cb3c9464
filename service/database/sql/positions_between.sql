-- $1 date, $2 a portfolio or null, $3 a portfolio. What the portfolios after the first, up to the second, held on that
-- date: closed positions (0 units) too, in the reverse of key order, for the last row of a symbol to be its first. So it
-- is an index-only scan, and nothing is sorted. A symbol is given as a number that is the same in every statement, so that
-- every position is of one length; those of a portfolio are one value: a third of the bytes that a row for each takes.
select portfolio_id, string_agg(int8send(hashtextextended(symbol, 0)) || int8send(units), ''::bytea)
from (
    select distinct on (portfolio_id, symbol) portfolio_id, symbol, units
    from public.position
    where ($2::uuid is null or portfolio_id > $2) and portfolio_id <= $3::uuid and valid_from <= $1::date
    order by portfolio_id desc, symbol desc, valid_from desc
) as held
group by portfolio_id
order by portfolio_id desc
