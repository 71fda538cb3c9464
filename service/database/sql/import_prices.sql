-- Insert or update the closes. An imported close has no token, and no source replaces it.
insert into public.price_eod as eod (symbol, session_date, close, at)
select symbol, session_date, close, at
from imported
order by symbol, session_date
on conflict (symbol, session_date) do update set
    close = excluded.close, at = excluded.at, token = null, provisional = false
    where (eod.close, eod.token) is distinct from (excluded.close, null)
