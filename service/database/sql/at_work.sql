-- $1 process ids of sessions.
-- The ids of the sessions that execute a statement now, even if the statement waits for a lock. A session that waits for
-- its client is left out: it waits for the next request, or until the client reads an answer.
select pid
from pg_catalog.pg_stat_activity
where pid = any($1::int[]) and state = 'active' and wait_event_type is distinct from 'Client'
