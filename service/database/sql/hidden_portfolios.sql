-- The role of this session if row-level security hides portfolios from it. Otherwise no row.
select current_user::text
where row_security_active('public.portfolio')
    and not exists (
        select from pg_policy as policy
        where policy.polrelid = 'public.portfolio'::regclass
            and policy.polpermissive
            and policy.polcmd in ('*', 'r')
            and pg_get_expr(policy.polqual, policy.polrelid) = 'true'
            and exists (select from unnest(policy.polroles) as role where role = 0 or pg_has_role(role, 'usage'))
    )
