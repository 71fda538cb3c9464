-- $1 session date, $2 its close, $3 symbols, $4 token. Of those whose close nobody has given, the last live price before
-- it, if that is newer than every close known; provisional, as its `at` may be long before.
insert into price_eod as eod (symbol, session_date, close, at, token, provisional)
select symbol, $1, price, at, $4, true
from price_live as live
where symbol = any($3::text[]) and at <= $2 and not exists (
    select from price_eod as known where known.symbol = live.symbol and session_date <= $1 and known.at >= live.at
)
on conflict (symbol, session_date) do update set close = excluded.close, at = excluded.at, token = excluded.token
    where eod.provisional
