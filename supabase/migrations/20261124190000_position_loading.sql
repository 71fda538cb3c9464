-- The progress of the term that loads positions, for /background/status of every task. It is written every few seconds
-- during a load, and deleted at its end.
create table position_loading (
    lease text primary key references lease_fence (lease) on delete cascade,
    token bigint not null,
    portfolios_done integer not null,
    portfolios integer not null,
    written_at timestamptz not null default now()
);

alter table position_loading enable row level security;
revoke all on position_loading from anon, authenticated;
grant all on position_loading to service_role;
