-- $1 portfolios, $2 symbols, $3 dates from which they hold, $4 quantities. In key order, as an import goes: two writers that
-- go different ways through the same rows wait for each other until the database ends one.
insert into public.position (portfolio_id, symbol, valid_from, quantity)
select portfolio_id, symbol, valid_from, quantity
from unnest($1::uuid[], $2::text[], $3::date[], $4::numeric[]) as row (portfolio_id, symbol, valid_from, quantity)
order by portfolio_id, symbol, valid_from
on conflict (portfolio_id, symbol, valid_from) do update set quantity = excluded.quantity
