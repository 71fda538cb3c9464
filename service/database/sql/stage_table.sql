-- The table for the values that a transaction receives by COPY, in key order. Its rows are deleted at the end of the
-- transaction, and are not in the write-ahead log.
create temporary table if not exists staged_value (
    portfolio_id uuid not null,
    value numeric(38, 4) not null, -- same types as the target tables, which saves conversions
    day_open numeric(38, 4) not null,
    priced_fraction numeric(5, 4) not null,
    known boolean not null, -- whether value and day_open are valid
    stale boolean not null,
    oldest_price_at timestamptz not null -- infinity: no price
) on commit delete rows
