-- $1 session date, $2 as of, $3 token, $4 and $5 the first and the last staged portfolio.
-- Update live values to the staged ones. High and low are reset in each session and when day_open changes. day_open
-- changes when positions change or a symbol gets its first price of the session. The earlier highs and lows then belong
-- to other positions. A price that appears, or a purchase, must not count as a rise.
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
