-- $1 portfolios, $2 symbols, $3 valid-from dates, $4 quantities.
-- Insert or update the entries in key order, like an import. Two writers that lock the same rows in different orders
-- would deadlock.
insert into public.position (portfolio_id, symbol, valid_from, quantity)
select portfolio_id, symbol, valid_from, quantity
from unnest($1::uuid[], $2::text[], $3::date[], $4::numeric[]) as row (portfolio_id, symbol, valid_from, quantity)
order by portfolio_id, symbol, valid_from
on conflict (portfolio_id, symbol, valid_from) do update set quantity = excluded.quantity
