-- TRUNCATE fires no trigger for DELETE. Without this trigger, a leader would continue to value the positions of a
-- truncated table. The trigger fires before the truncation, because after TRUNCATE portfolio CASCADE there is no
-- portfolio whose change could be noted.
create function public.note_truncated_positions() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
    insert into public.position_change (portfolio_id) select id from public.portfolio;
    return null;
end
$$;
revoke all on function public.note_truncated_positions() from public, anon, authenticated;

create trigger note_truncated before truncate on public.position
    for each statement execute function public.note_truncated_positions();
