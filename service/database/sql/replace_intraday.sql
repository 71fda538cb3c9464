-- What follows write_intraday.sql where the slot may have points already. To look for one before each insert doubles what
-- the inserts cost, and hardly ever is there one.
on conflict (portfolio_id, session_date, slot) do update set
    value = excluded.value,
    priced_fraction = excluded.priced_fraction,
    stale = excluded.stale,
    token = excluded.token
