-- $1 session date, $2 as of, $3 token, $4 and $5 the first and last portfolio staged. The staged values. High and low start
-- anew with the session, and whenever day_open moves: then other positions are held or priced than before, or a symbol has
-- got its first price of the session, and what was reached with yesterday's is neither high nor low of today. A price that
-- turns up, or a purchase, is no rise.
update public.portfolio_live as live set
    session_date = $1,
    as_of = $2,
    value = case when row.known then row.value end,
    day_open = case when row.known then row.day_open end,
    day_high = case
        when not row.known then null
        when live.session_date = $1 and live.day_open = row.day_open
        then greatest(live.day_high, row.value) else row.value
    end,
    day_low = case
        when not row.known then null
        when live.session_date = $1 and live.day_open = row.day_open
        then least(live.day_low, row.value) else row.value
    end,
    priced_fraction = row.priced_fraction,
    stale = row.stale,
    oldest_price_at = nullif(row.oldest_price_at, 'infinity'),
    token = $3
from staged_value as row
where live.portfolio_id = row.portfolio_id and live.portfolio_id between $4 and $5
