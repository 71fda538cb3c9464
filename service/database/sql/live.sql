-- $1 portfolios.
-- The owner and the live value, if any, of each portfolio, from one snapshot. The symbols without a price are looked up
-- only if a position has no price.
select
    portfolio.id as portfolio_id, portfolio.user_id,
    live.session_date, live.as_of, live.value, live.day_open, live.day_high, live.day_low,
    live.priced_fraction, live.stale, live.oldest_price_at, live.token,
    coalesce(unpriced.symbols, '{}') as unpriced_symbols,
    coalesce(unpriced.count, 0) as unpriced_count
from public.portfolio
left join public.portfolio_live as live on live.portfolio_id = portfolio.id
left join lateral public.unpriced_symbols(live.portfolio_id, live.session_date) as unpriced on live.priced_fraction < 1
where portfolio.id = any($1)
