-- Changes of positions, for a leader that holds all positions in memory; and the limits of exact computation.

-- One row for each portfolio that a transaction changed. The reader asks for the changes that its last snapshot did not
-- see. A sequence would not work: a lower number can be committed after a higher one was read.
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
create trigger note_moved after update on position -- the portfolio that the position was moved out of
    referencing old table as changed for each statement execute function note_changed_positions();
create trigger note_deleted after delete on position
    referencing old table as changed for each statement execute function note_changed_positions();
create trigger note_inserted after insert on portfolio
    referencing new table as changed for each statement execute function note_changed_portfolios();
create trigger note_deleted after delete on portfolio
    referencing old table as changed for each statement execute function note_changed_portfolios();

-- With the quantity in the key's index, positions are read in key order from the index alone.
alter table position
    drop constraint position_pkey,
    add primary key (portfolio_id, symbol, valid_from) include (quantity);

-- For positions that become valid when the date changes.
create index position_valid_from on position (valid_from);

-- Limits of 64-bit integers in units of 1e-8 shares and 1e-6 dollars.
alter table position add check (abs(quantity) < 10000000000);
alter table price_live add check (price < 1000000000 and open < 1000000000);
alter table price_eod add check (close < 1000000000);

