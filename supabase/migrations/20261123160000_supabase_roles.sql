-- The roles and auth.uid() that Supabase has and a plain Postgres does not. With them, the policies of the later
-- migrations mean the same on both. On Supabase this migration changes nothing.
do $$
declare
    role_name text;
    may_bypass boolean := (select rolsuper or rolbypassrls from pg_roles where rolname = current_user);
begin
    foreach role_name in array array['anon', 'authenticated', 'service_role'] loop
        if not exists (select from pg_roles where rolname = role_name) then
            begin
                execute format(
                    'create role %I nologin noinherit%s',
                    role_name,
                    case when role_name = 'service_role' and may_bypass then ' bypassrls' else '' end
                );
            exception
                -- Roles belong to the whole server: another database's migration may have created them.
                when duplicate_object or unique_violation then null;
            end;
        end if;
    end loop;

    if to_regnamespace('auth') is null then
        create schema auth;
        grant usage on schema auth to anon, authenticated, service_role;
    end if;

    if to_regprocedure('auth.uid()') is null then
        create function auth.uid() returns uuid language sql stable as $body$
            select coalesce(
                nullif(current_setting('request.jwt.claim.sub', true), ''),
                nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
            )::uuid
        $body$;
    end if;
end
$$;

grant usage on schema public to anon, authenticated, service_role;
