-- How a leader that holds every position in memory hears of changes, and the bounds within which it computes exactly.

-- A row for each portfolio that a transaction changed. The reader asks for what its last snapshot did not see: a
-- sequence would not do, for a lower number can be committed after a higher one has been read.
create table position_change (
    xid xid8 not null default pg_current_xact_id(),
    portfolio_id uuid not null
);
create index position_change_xid on position_change (xid);
alter table position_change enable row level security;
revoke all on position_change from anon, authenticated;
grant all on position_change to service_role;

create function note_changed_positions() returns trigger language plpgsql security definer set search_path = '' as $$
begin
    insert into public.position_change (portfolio_id) select distinct portfolio_id from changed;
    return null;
end
$$;

create function note_changed_portfolios() returns trigger language plpgsql security definer set search_path = '' as $$
begin
    insert into public.position_change (portfolio_id) select distinct id from changed;
    return null;
end
$$;

revoke all on function note_changed_positions(), note_changed_portfolios() from public, anon, authenticated;

create trigger note_inserted after insert on position
    referencing new table as changed for each statement execute function note_changed_positions();
create trigger note_updated after update on position
    referencing new table as changed for each statement execute function note_changed_positions();
create trigger note_moved after update on position -- the portfolio that it was moved out of
    referencing old table as changed for each statement execute function note_changed_positions();
create trigger note_deleted after delete on position
    referencing old table as changed for each statement execute function note_changed_positions();
create trigger note_inserted after insert on portfolio
    referencing new table as changed for each statement execute function note_changed_portfolios();
create trigger note_deleted after delete on portfolio
    referencing old table as changed for each statement execute function note_changed_portfolios();

-- With the quantity in the key's index, positions are read in key order without a look at the table.
alter table position
    drop constraint position_pkey,
    add primary key (portfolio_id, symbol, valid_from) include (quantity);

-- What becomes valid when the date changes.
create index position_valid_from on position (valid_from);

-- What fits 64-bit integers: hundred-millionths of a share, millionths of a dollar.
alter table position add check (abs(quantity) < 10000000000);
alter table price_live add check (price < 1000000000 and open < 1000000000);
alter table price_eod add check (close < 1000000000);

