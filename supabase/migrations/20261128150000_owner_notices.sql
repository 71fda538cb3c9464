-- When a portfolio's owner changes, a task that streams the portfolio's values checks the owner again. A transaction
-- sends one notification, however many portfolios it changes: the server drops duplicates.
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
