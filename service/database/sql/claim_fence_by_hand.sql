-- $1 lease, $2 holder.
-- The holder's token: the next number. An elected term has the time in microseconds, which is far larger. No row if
-- there is no larger number.
insert into public.lease_fence as fence (lease, token, holder)
values ($1, 1, $2)
on conflict (lease) do update set token = fence.token + 1, holder = excluded.holder, taken_at = now()
    where fence.token < 9223372036854775807
returning token
