-- How far the term that loads the positions has come, for /background/status of every task. Written each few seconds of a
-- load, and gone when it has ended.
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
