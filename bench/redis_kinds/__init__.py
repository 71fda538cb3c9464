"""Hand-over, time without a leader and overlap on each kind of Redis, with whole sidecars and clients.

`make redis-kinds` prints the table. `make failovers` prints the long failovers of Sentinel at default timings.
`python -m bench.redis_kinds --kind sentinels --event kill --ttl 6` prints one row.

The benchmark can fail: `FAILOVER_GUARD=false python -m bench.redis_kinds --kind sentinels --event unseen --ttl 6` finds
two clients that believe at the same time that they lead.

    client    one client in its own process             servers   the kinds of Redis, and their events
    trial     the tasks of one row, and its numbers     __main__  arguments, progress, table
"""
