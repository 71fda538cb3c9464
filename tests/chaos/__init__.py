"""Runs whole tasks from `task-definition.json` under random real faults and deploys.

A run checks the promises of docs/guarantees.md. `make chaos MINUTES=10 TASKS=4 SEED=1 REDIS=server` starts a run; REDIS
may also be `cluster` or `sentinels`. Half of the tasks run the product's API, and half run a client that only writes.
Both use the production client library, and record when it believes that it leads. Triggers in the database record the
accepted writes in commit order.

    schedule  the faults and their times, from the seed     diary      the records of a client, in its own process
    fleet     the tasks, kept running as by ECS             observers  the reader of the growing diaries
    redis_pair  primary, replica, and the proxies           database   the accepted writes, in commit order
    faults    causes and ends each fault                    oracles    the checks of the promises
    run       rounds of storm and calm                      report, picture  the results

A setting of the task definition can be given in the environment, unless the fleet sets it itself. So a run can switch
a safeguard off: `FAILOVER_GUARD=false python -m tests.chaos --ttl 3 --minutes 3 --seed 48 --services 1` finds two
believers, which are two clients that believe at the same time that they lead one lease. `--without-fence` lets stale
leaders write, and the run finds their writes. `--isolating` cuts off primaries that still serve. MIN_REPLICAS prevents
two believers in this case: with `MIN_REPLICAS=0` in the environment the run finds them. `--only FAULT` excludes all
other faults from the storms. `FAILOVER_GUARD=false python -m tests.chaos --redis cluster --only "zone outage" --minutes
0.4 --seed 3` finds two believers; so does the same command with `--redis sentinels --only "unseen failover"`.
"""
