-- The users' data: portfolios and their positions over time.

create table portfolio (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null,
    name text not null,
    created_at timestamptz not null default now()
);
create index portfolio_user_id on portfolio (user_id);

-- Positions are effective-dated: a row holds from valid_from until the next row of the same portfolio and symbol.
-- Quantity 0 closes the position. Without an end date, periods cannot overlap or contradict each other.
create table position (
    portfolio_id uuid not null references portfolio (id) on delete cascade,
    symbol text not null check (symbol <> ''),
    valid_from date not null,
    quantity numeric(24, 8) not null check (quantity <> 'NaN'),
    primary key (portfolio_id, symbol, valid_from)
);
