-- $1 session date, $2 the session's open, $3 its close, $4 token. Where nobody has a close, the session's last price.
insert into price_eod (symbol, session_date, close, at, token)
select symbol, session_date, price, at, $4
from price_live
where session_date = $1 and at between $2 and $3
on conflict (symbol, session_date) do nothing
