-- Where a transaction's values come in by COPY, in key order: gone with the transaction, logged nowhere.
create temporary table if not exists staged_value (
    portfolio_id uuid not null,
    value numeric not null,
    day_open numeric not null,
    priced_fraction numeric not null,
    known boolean not null, -- whether value and day_open mean anything
    stale boolean not null,
    oldest_price_at timestamptz not null -- infinity: no price
) on commit delete rows
