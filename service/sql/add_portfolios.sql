-- $1 ids, $2 users, $3 names. A portfolio that is there stays as it is.
insert into portfolio (id, user_id, name)
select id, user_id, name from unnest($1::uuid[], $2::uuid[], $3::text[]) as row (id, user_id, name)
on conflict (id) do nothing
