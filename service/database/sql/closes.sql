-- $1 date, $2 symbols.
-- The last close of each symbol on or before that date, with one index access for each symbol.
select eod.symbol, eod.session_date, eod.close, eod.at, eod.provisional
from unnest($2::text[]) as wanted (symbol)
cross join lateral (
    select symbol, session_date, close, at, provisional
    from public.price_eod
    where symbol = wanted.symbol and session_date <= $1
    order by session_date desc
    limit 1
) as eod
