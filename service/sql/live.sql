-- $1 portfolios. Those of them that have a value.
select
    portfolio_id, session_date, as_of, value, day_open, day_high, day_low, priced_fraction, stale, oldest_price_at, token
from public.portfolio_live
where portfolio_id = any($1)
