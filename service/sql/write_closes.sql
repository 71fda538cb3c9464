-- $1 session date, $2 symbols, $3 closes, $4 instants, $5 token. A source's closes, which no longer are provisional.
insert into price_eod as eod (symbol, session_date, close, at, token)
select row.symbol, $1, row.close, row.at, $5
from unnest($2::text[], $3::numeric[], $4::timestamptz[]) as row (symbol, close, at)
on conflict (symbol, session_date) do update set
    close = excluded.close,
    at = excluded.at,
    token = excluded.token,
    provisional = false
    where eod.token is not null -- imported ones stay
        and (eod.close, eod.at, eod.provisional) is distinct from (excluded.close, excluded.at, false)
