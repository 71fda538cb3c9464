-- $1 date, $2 portfolios, $3 the seed of the hash.
-- Like positions_between.sql, for a list of portfolios.
select portfolio_id, string_agg(int8send(hashtextextended(symbol, $3)) || int8send(units), ''::bytea)
from (
    select distinct on (portfolio_id, symbol) portfolio_id, symbol, units
    from public.position
    where portfolio_id = any($2::uuid[]) and valid_from <= $1::date
    order by portfolio_id desc, symbol desc, valid_from desc
) as held
group by portfolio_id
order by portfolio_id desc
