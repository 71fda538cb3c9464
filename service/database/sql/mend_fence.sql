-- $1 lease, $2 the token that was seen, $3 holder. Sets a token that is more than a day ahead back to the database's
-- time, which is what the next term's token is compared with. No row if the fence has another token by now, or one that
-- needs no mending. The update waits for the transactions that hold the row FOR SHARE.
update public.lease_fence
set token = (extract(epoch from clock_timestamp()) * 1000000)::bigint,
    holder = $3,
    taken_at = now()
where lease = $1
    and token = $2
    and token > extract(epoch from clock_timestamp()) * 1000000 + 86400000000
returning token
