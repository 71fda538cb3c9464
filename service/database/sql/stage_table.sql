-- Where a transaction's values come in by COPY, in key order: gone with the transaction, logged nowhere.
create temporary table if not exists staged_value (
    portfolio_id uuid not null,
    value numeric(38, 4) not null, -- of the same types as where they go: so none is converted
    day_open numeric(38, 4) not null,
    priced_fraction numeric(5, 4) not null,
    known boolean not null, -- whether value and day_open mean anything
    stale boolean not null,
    oldest_price_at timestamptz not null -- infinity: no price
) on commit delete rows
