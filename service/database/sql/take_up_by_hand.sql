-- $1 lease, $2 holder. The token that the holder has taken the lease up with: the next one, far below any that the
-- election will give, which is the time in microseconds. No row if there is no larger number.
insert into public.lease_fence as fence (lease, token, holder)
values ($1, 1, $2)
on conflict (lease) do update set token = fence.token + 1, holder = excluded.holder, taken_at = now()
    where fence.token < 9223372036854775807
returning token
