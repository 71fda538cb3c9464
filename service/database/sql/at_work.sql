-- $1: process ids of sessions. Those that execute a statement now, or wait for a lock in it. A session that waits for its
-- client is left out: it waits for a request, or for an answer to be read.
select pid
from pg_catalog.pg_stat_activity
where pid = any($1::int[]) and state = 'active' and wait_event_type is distinct from 'Client'
