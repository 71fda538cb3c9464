-- A tick in lanes is several transactions that are committed together. If the tick and a deletion wanted two locks in
-- different orders, the database would not see the deadlock, because a lane waits for the service. So a deletion and
-- the writes of such a tick never overlap.
create function hold_off_deletions() returns void language sql as $$
    select pg_advisory_xact_lock(hashtext('portfolio_live'), 0)
$$;
revoke all on function hold_off_deletions() from public, anon, authenticated;
grant execute on function hold_off_deletions() to service_role;

create function wait_for_tick() returns trigger language plpgsql security definer set search_path = '' as $$
begin
    perform public.hold_off_deletions();
    return null;
end
$$;
revoke all on function wait_for_tick() from public, anon, authenticated;

create trigger wait_for_tick before delete on portfolio for each statement execute function wait_for_tick();
