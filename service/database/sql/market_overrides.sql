-- $1 calendar.
-- The days that differ from the calendar. A date outside the years that Python supports becomes the nearest limit; a
-- time outside those years becomes infinity. So a wrong row does not affect other rows, and the reader can report it.
select
    least(greatest(session_date, '0001-01-01'), '9999-12-31') as session_date,
    case when opens_at not between '0001-01-02Z' and '9999-12-30Z' then 'infinity' else opens_at end as opens_at,
    case when closes_at not between '0001-01-02Z' and '9999-12-30Z' then 'infinity' else closes_at end as closes_at,
    reason
from public.market_override
where calendar = $1
