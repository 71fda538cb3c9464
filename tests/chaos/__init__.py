"""Runs whole tasks from `task-definition.json` under random real faults and deploys.

A run checks the promises of docs/guarantees.md. `make chaos MINUTES=10 TASKS=4 SEED=1 REDIS=server` starts a run; REDIS
may also be `cluster` or `sentinels`. Half of the tasks run the product's API, and half run a client that only writes.
Both use the production client library, and record when they believe that they lead. Triggers in the database record
the accepted writes in commit order.

    schedule  the faults and their times, from the seed     diary      the records of a client, in its own process
    fleet     the tasks, kept running as by ECS             observers  the reader of the growing diaries
    redis_pair  primary, replica, and the proxies           database   the accepted writes, in commit order
    faults    causes and ends each fault                    oracles    the checks of the promises
    run       rounds of storm and calm                      report, picture  the results

The environment overrides settings of the task definition, except those that the fleet sets. Without a safeguard,
a run must find violations:

- `FAILOVER_GUARD=false python -m tests.chaos --ttl 3 --minutes 3 --seed 48 --services 1` finds two believers: two
  clients that believe at the same time that they lead one lease.
- `FAILOVER_GUARD=false python -m tests.chaos --redis cluster --only "zone outage" --minutes 0.4 --seed 3` finds two
  believers, as does the same command with `--redis sentinels --only "unseen failover"`. `--only FAULT` excludes all
  other faults from the storms.
- `--isolating` cuts off primaries that still serve. MIN_REPLICAS then prevents two believers; with `MIN_REPLICAS=0` in
  the environment the run finds them.
- `--without-fence` lets stale leaders write, and the run finds their writes.
"""
