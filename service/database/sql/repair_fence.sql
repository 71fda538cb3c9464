-- $1 lease, $2 the token that was seen, $3 holder.
-- If the token is more than a day ahead, set it to the database's time, below every later term's token. No row if the
-- fence has another token by now, or a valid one. The update waits for the transactions that hold the row FOR SHARE.
update public.lease_fence
set token = (extract(epoch from clock_timestamp()) * 1000000)::bigint,
    holder = $3,
    taken_at = now()
where lease = $1
    and token = $2
    and token > extract(epoch from clock_timestamp()) * 1000000 + 86400000000
returning token
