-- $1 portfolios, $2 symbols, $3 dates from which they hold, $4 quantities.
insert into position (portfolio_id, symbol, valid_from, quantity)
select portfolio_id, symbol, valid_from, quantity
from unnest($1::uuid[], $2::text[], $3::date[], $4::numeric[]) as row (portfolio_id, symbol, valid_from, quantity)
on conflict (portfolio_id, symbol, valid_from) do update set quantity = excluded.quantity
