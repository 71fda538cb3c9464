-- $1 session date, $2 as of, $3 token, $4 and $5 the first and the last staged portfolio.
-- Insert the staged values of portfolios without a live value. Portfolios that were deleted meanwhile are skipped.
insert into public.portfolio_live (
    portfolio_id, session_date, as_of, value, day_open, day_high, day_low, priced_fraction, stale, oldest_price_at, token
)
select
    portfolio_id, $1, $2, worth, opened, worth, worth, priced_fraction, stale, nullif(oldest_price_at, 'infinity'), $3
from staged_value,
    lateral (select case when known then value end as worth, case when known then day_open end as opened) as sure
where not exists (
        select from public.portfolio_live as live
        where live.portfolio_id = staged_value.portfolio_id and live.portfolio_id between $4 and $5
    )
    and exists (select from public.portfolio where id = staged_value.portfolio_id and id between $4 and $5)
order by portfolio_id
