-- Follows write_intraday.sql if the slot may already have points. A check for a point before each insert would double
-- the cost of the inserts, and a point rarely exists.
on conflict (portfolio_id, session_date, slot) do update set
    value = excluded.value,
    priced_fraction = excluded.priced_fraction,
    stale = excluded.stale,
    token = excluded.token
