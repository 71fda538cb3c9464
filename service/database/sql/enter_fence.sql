-- $1 lease, $2 token, $3 holder, $4 how long the transaction may be idle, $5 how long a statement and, where the server
-- knows that limit (Postgres 17), the transaction may take (both as settings, in ms). One row if the term is the newest:
-- the lock lasts as long as the transaction, so no newer term takes the lease up before our commit, and ours waits for a
-- take-up under way and then finds no row. A plain read would let a stale write commit after a newer leader's. The
-- timeouts end the transaction of a leader that was frozen in it: only that of the transaction ends one that was frozen
-- in the middle of a message.
select
    set_config('idle_in_transaction_session_timeout', $4, true),
    set_config('statement_timeout', $5, true),
    case
        when current_setting('server_version_num')::int >= 170000 then set_config('transaction_timeout', $5, true)
    end
from public.lease_fence
where lease = $1 and token = $2 and holder = $3
for share
