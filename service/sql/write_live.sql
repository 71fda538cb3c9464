-- $1 portfolios, $2 session date, $3 as of, $4 values, $5 values at the day's open, $6 priced fractions, $7 stale,
-- $8 oldest prices, $9 token. High and low start anew with the session, and when other positions have prices than before:
-- a price that turns up is no rise.
insert into portfolio_live as live (
    portfolio_id, session_date, as_of, value, day_open, day_high, day_low, priced_fraction, stale, oldest_price_at, token
)
select
    row.portfolio_id, $2, $3, row.value, row.day_open, row.value, row.value, row.priced_fraction, row.stale,
    row.oldest_price_at, $9
from unnest($1::uuid[], $4::numeric[], $5::numeric[], $6::numeric[], $7::boolean[], $8::timestamptz[])
    as row (portfolio_id, value, day_open, priced_fraction, stale, oldest_price_at)
where exists (select from portfolio where id = row.portfolio_id) -- it may be gone since its positions were read
on conflict (portfolio_id) do update set
    session_date = excluded.session_date,
    as_of = excluded.as_of,
    value = excluded.value,
    day_open = excluded.day_open,
    day_high = case
        when live.session_date = excluded.session_date and live.priced_fraction = excluded.priced_fraction
        then greatest(live.day_high, excluded.value) else excluded.value
    end,
    day_low = case
        when live.session_date = excluded.session_date and live.priced_fraction = excluded.priced_fraction
        then least(live.day_low, excluded.value) else excluded.value
    end,
    priced_fraction = excluded.priced_fraction,
    stale = excluded.stale,
    oldest_price_at = excluded.oldest_price_at,
    token = excluded.token
