-- The closes that differ from the previous close by a factor of at least 1.5: a split, or a mistake.
with steps as (
    select symbol, session_date, close, lag(close) over (partition by symbol order by session_date) as before
    from imported
),
known as (
    select steps.symbol, steps.session_date, steps.close, coalesce(steps.before, earlier.close) as before
    from steps
    left join lateral (
        select close from public.price_eod
        where steps.before is null and symbol = steps.symbol and session_date < steps.session_date
        order by session_date desc
        limit 1
    ) as earlier on true
)
select symbol, session_date, before, close
from known
where close >= before * 1.5 or close * 1.5 <= before
order by symbol, session_date
