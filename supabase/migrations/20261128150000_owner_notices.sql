-- A task that streams a portfolio's values looks again at whose portfolio it is when that changes. One notification a
-- transaction, however many portfolios change in it: the server drops the ones that are equal.
create function public.notify_changed_owners() returns trigger language plpgsql security definer set search_path = '' as $$
begin
    perform pg_catalog.pg_notify('portfolio_owner', '');
    return null;
end
$$;
revoke all on function public.notify_changed_owners() from public, anon, authenticated;

create trigger notify_given after update of user_id on public.portfolio
    for each statement execute function public.notify_changed_owners();
create trigger notify_deleted after delete or truncate on public.portfolio
    for each statement execute function public.notify_changed_owners();
