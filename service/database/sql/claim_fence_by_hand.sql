-- $1 lease, $2 holder.
-- The holder's token: the stored token plus one, or 1 before any term has claimed the fence. The token of a later
-- elected term is the time in microseconds, which is larger. No row if the stored token is the largest possible number.
insert into public.lease_fence as fence (lease, token, holder)
values ($1, 1, $2)
on conflict (lease) do update set token = fence.token + 1, holder = excluded.holder, taken_at = now()
    where fence.token < 9223372036854775807
returning token
