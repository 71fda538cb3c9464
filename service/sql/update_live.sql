-- $1 session date, $2 as of, $3 token. The staged values. High and low start anew with the session, and when other
-- positions have prices than before: a price that turns up is no rise.
update portfolio_live as live set
    session_date = $1,
    as_of = $2,
    value = case when row.known then row.value end,
    day_open = case when row.known then row.day_open end,
    day_high = case
        when not row.known then null
        when live.session_date = $1 and live.priced_fraction = row.priced_fraction
        then greatest(live.day_high, row.value) else row.value
    end,
    day_low = case
        when not row.known then null
        when live.session_date = $1 and live.priced_fraction = row.priced_fraction
        then least(live.day_low, row.value) else row.value
    end,
    priced_fraction = row.priced_fraction,
    stale = row.stale,
    oldest_price_at = nullif(row.oldest_price_at, 'infinity'),
    token = $3
from staged_value as row
where live.portfolio_id = row.portfolio_id
