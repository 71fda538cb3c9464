-- $1 portfolios. Those of them that have a value; only where some positions had no price it is looked up which.
select
    live.portfolio_id, live.session_date, live.as_of, live.value, live.day_open, live.day_high, live.day_low,
    live.priced_fraction, live.stale, live.oldest_price_at, live.token,
    coalesce(unpriced.symbols, '{}') as unpriced_symbols,
    coalesce(unpriced.count, 0) as unpriced_count
from public.portfolio_live as live
left join lateral public.unpriced_symbols(live.portfolio_id, live.session_date) as unpriced on live.priced_fraction < 1
where live.portfolio_id = any($1)
