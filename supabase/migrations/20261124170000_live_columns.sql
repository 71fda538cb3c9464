comment on column portfolio_live.stale is
    'Whether a price of the portfolio''s positions was carried forward, too old or from the future when the row was '
    'written. While no tracker runs, the rows stay unchanged and their prices become old. So the API compares '
    'oldest_price_at, or as_of if oldest_price_at is null, with the clock and the market''s hours. Every other reader '
    'of the table must do the same.';
comment on column portfolio_live.oldest_price_at is
    'The time at which the oldest price of the portfolio''s positions was made. Null if no position has a price.';
comment on column portfolio_live.day_open is
    'The value of the present positions at the first prices made in the session. A symbol without such a price counts '
    'at its last price. A symbol without any price is left out. When day_open or session_date changes, day_high and '
    'day_low are reset to value.';
comment on column price_live.open is
    'The first received price that was made in the session of session_date. Until such a price arrives, open equals '
    'price, and the column at has a time before the session.';
