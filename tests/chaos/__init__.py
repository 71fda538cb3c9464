"""Whole tasks from `task-definition.json` under random real faults and deploys, and what must be so all the while.

`make chaos MINUTES=10 TASKS=4 SEED=1`. Half of the tasks run the product's API, half a client that only writes; what
each believes is observed inside the production client, what the database accepts by triggers in commit order.

    schedule  what is done and when, from the seed          diary      what a client writes down, in its own process
    fleet     the tasks, as ECS keeps them                  observers  the diaries read, while they grow
    redis_pair  primary, replica, and proxies between       database   the accepted writes, in commit order
    faults    how each fault is done and undone             oracles    what must be so
    run       rounds of storm and calm                      report, picture  what came of it

Any setting of the task definition can be given in the environment: `FAILOVER_GUARD=false python -m tests.chaos --ttl 3
--minutes 3 --seed 48 --services 1` takes a promise away, and the run finds two believers. `--without-fence` lets stale
leaders write, and the run finds that. `--isolating` cuts primaries off that go on serving, which MIN_REPLICAS is for:
with `MIN_REPLICAS=0` in the environment two clients believe.
"""
