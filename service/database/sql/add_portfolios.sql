-- $1 ids, $2 users, $3 names.
-- Insert the portfolios that do not exist, in key order, like an import. Existing ones stay as they are.
insert into public.portfolio (id, user_id, name)
select id, user_id, name from unnest($1::uuid[], $2::uuid[], $3::text[]) as row (id, user_id, name)
order by id
on conflict (id) do nothing
