-- $1 lease, $2 token, $3 holder, $4 idle limit of the transaction, $5 limit of a statement and, from Postgres 17 on, of
-- the transaction. $4 and $5 are milliseconds as text, because settings are text.
-- One row if the term is the newest. The row lock lasts until the end of the transaction, so no newer term can claim
-- the fence before this transaction commits. If a claim is under way, this statement waits and then finds no row. A
-- plain read would let a stale write commit after a newer leader's write.
-- The limits end the transaction of a leader that freezes in it. If the leader freezes in the middle of a message, only
-- the limit of the transaction applies.
select
    set_config('idle_in_transaction_session_timeout', $4, true),
    set_config('statement_timeout', $5, true),
    case
        when current_setting('server_version_num')::int >= 170000 then set_config('transaction_timeout', $5, true)
    end
from public.lease_fence
where lease = $1 and token = $2 and holder = $3
for share
