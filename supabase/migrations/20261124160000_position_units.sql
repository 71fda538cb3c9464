-- What the leader reads at the start of a term and for every day's rows, as it computes with it: hundred-millionths of a
-- share. To make that of a numeric for each of twenty million positions took longer than to read them.
alter table position
    add column units bigint not null generated always as ((quantity * 100000000)::bigint) stored,
    drop constraint position_pkey,
    add primary key (portfolio_id, symbol, valid_from) include (units);
