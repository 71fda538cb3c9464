-- The quantity in units of 1e-8 shares, as the leader needs it at the start of a term and for every day's rows.
-- Converting a numeric for each of twenty million positions took longer than reading them.
alter table position
    add column units bigint not null generated always as ((quantity * 100000000)::bigint) stored,
    drop constraint position_pkey,
    add primary key (portfolio_id, symbol, valid_from) include (units);
