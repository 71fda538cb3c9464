-- $1 session date, $2 symbols, $3 closes, $4 instants, $5 token, $6 the session's close, $7 all symbols.
-- Write the closes of a source, which are not provisional. A symbol without a close gets its stored live price, if
-- that price was made at or before the session's close and is newer than every close up to this session. Such a close
-- is provisional: the price may be old.
-- One statement, in key order, like an import; see put_positions.sql.
with given as (
    select symbol, close, at from unnest($2::text[], $3::numeric[], $4::timestamptz[]) as row (symbol, close, at)
),
found as (
    select symbol, close, at, false as provisional from given
    union all
    select symbol, price, at, true
    from public.price_live as live
    where symbol = any($7::text[]) and at <= $6
        and not exists (select from given where given.symbol = live.symbol)
        and not exists (
            select from public.price_eod as known
            where known.symbol = live.symbol and session_date <= $1 and known.at >= live.at
        )
)
insert into public.price_eod as eod (symbol, session_date, close, at, token, provisional)
select symbol, $1, close, at, $5, provisional
from found
order by symbol
on conflict (symbol, session_date) do update set
    close = excluded.close,
    at = excluded.at,
    token = excluded.token,
    provisional = excluded.provisional
    where eod.token is not null -- imported closes stay
        and (eod.provisional or not excluded.provisional)
        and (eod.close, eod.at, eod.provisional) is distinct from (excluded.close, excluded.at, excluded.provisional)
