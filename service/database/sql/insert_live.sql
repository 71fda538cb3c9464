-- $1 session date, $2 as of, $3 token, $4 and $5 the first and the last staged portfolio.
-- Insert the staged values of portfolios without a live value. Portfolios that were deleted meanwhile, and portfolios
-- whose deletion is under way, are skipped. The foreign key's check would wait for the end of the deletion and then
-- fail. If the deletion is rolled back, the next tick inserts the value. Only the new portfolios are locked.
insert into public.portfolio_live (
    portfolio_id, session_date, as_of, value, day_open, day_high, day_low, priced_fraction, stale, oldest_price_at, token
)
select
    portfolio_id, $1, $2, worth, opened, worth, worth, priced_fraction, stale, nullif(oldest_price_at, 'infinity'), $3
from (
    select staged_value.*
    from staged_value
    join public.portfolio on id = portfolio_id
    where id between $4 and $5
        and not exists (
            select from public.portfolio_live as live
            where live.portfolio_id = staged_value.portfolio_id and live.portfolio_id between $4 and $5
        )
    for key share of portfolio skip locked
) as new,
    lateral (select case when known then value end as worth, case when known then day_open end as opened) as sure
order by portfolio_id
