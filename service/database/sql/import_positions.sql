-- Insert or update the entries that are new or different, in key order.
insert into public.position (portfolio_id, symbol, valid_from, quantity)
select portfolio_id, symbol, valid_from, quantity
from imported
order by portfolio_id, symbol, valid_from
on conflict (portfolio_id, symbol, valid_from) do update set quantity = excluded.quantity
    where position.quantity <> excluded.quantity
