comment on column portfolio_live.stale is
    'Whether some price was carried forward, or too old, when the row was written. It stays as it was written: '
    'while no tracker runs, a row that is not stale grows old all the same. The API compares with the clock and the '
    'market''s hours; who reads the table must do so too, by oldest_price_at.';
comment on column portfolio_live.oldest_price_at is 'When the oldest price in the value was made; null: there is none.';
comment on column portfolio_live.day_open is
    'The positions of now at the first prices made in the session; a symbol that has had none counts at its last price. '
    'day_high and day_low start anew whenever this moves.';
comment on column price_live.open is
    'The first price made in the session of session_date; until there is one (at is before that session), the price.';
