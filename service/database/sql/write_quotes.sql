-- $1 symbols, $2 prices, $3 instants, $4 session dates, $5 opens, $6 token.
insert into public.price_live (symbol, price, at, session_date, open, token)
select row.symbol, row.price, row.at, row.session_date, row.open, $6
from unnest($1::text[], $2::numeric[], $3::timestamptz[], $4::date[], $5::numeric[])
    as row (symbol, price, at, session_date, open)
on conflict (symbol) do update set
    price = excluded.price,
    at = excluded.at,
    session_date = excluded.session_date,
    open = excluded.open,
    token = excluded.token
