-- $1 portfolios. The owner of each, and its value where it has one: both as of one moment.
select
    portfolio.id as portfolio_id, portfolio.user_id, live.session_date, live.as_of, live.value, live.day_open,
    live.day_high, live.day_low, live.priced_fraction, live.stale, live.oldest_price_at, live.token
from public.portfolio
left join public.portfolio_live as live on live.portfolio_id = portfolio.id
where portfolio.id = any($1)
