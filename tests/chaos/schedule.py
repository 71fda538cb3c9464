"""The faults and their times, drawn from a seed before the start, so that the seed and the options identify them.

A run has rounds. Each round begins with a storm of overlapping faults. In the calm after the storm, all faults are
repaired, each lease must have a leader, a writer of each lease becomes stale, and one hand-over or takeover is measured
without other faults.
"""

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

LEASES = "background_services", "daily_scheduler"


class Redis(StrEnum):
    """The kind of Redis of a run."""

    SERVER = "server"
    CLUSTER = "cluster"
    SENTINELS = "sentinels"


class Kind(StrEnum):
    """A kind of fault. Some kinds get a duration from the schedule (`Fault.seconds`); the others need none."""

    FREEZE_SIDECAR = "freeze sidecar"
    FREEZE_API = "freeze api"
    FREEZE_TASK = "freeze task"
    FREEZE_WRITER = "freeze between check and write"
    KILL_SIDECAR = "kill sidecar"
    KILL_API = "kill api"
    KILL_TASK = "kill task"
    DEPLOY = "deploy"
    SLOW = "slow network"
    BLACK_HOLE = "black hole"
    LATE_REQUESTS = "late requests"
    LOST_REPLIES = "lost replies"
    CUT = "cut"
    REFUSE = "refused"
    FREEZE_REDIS = "freeze redis"
    RESTART_REDIS = "restart redis"
    FAILOVER = "failover"
    STEP_CLOCK = "clock step"
    ISOLATE = "isolated primary"
    BY_HAND = "failover by hand"
    OUTAGE = "zone outage"
    UNSEEN = "unseen failover"
    MIGRATE = "slot migration"
    RESTART_POSTGRES = "restart postgres"
    FREEZE_POSTGRES = "freeze postgres"
    DELETE = "DEL"
    DISABLE = "DISABLED"
    PERSIST = "PERSIST"


TASK = {
    Kind.FREEZE_SIDECAR: 4,
    Kind.FREEZE_API: 4,
    Kind.FREEZE_TASK: 3,
    Kind.FREEZE_WRITER: 4,
    Kind.KILL_SIDECAR: 4,
    Kind.KILL_API: 3,
    Kind.KILL_TASK: 2,
    Kind.DEPLOY: 4,
    Kind.SLOW: 3,
    Kind.BLACK_HOLE: 3,
    Kind.LATE_REQUESTS: 3,
    Kind.LOST_REPLIES: 3,
    Kind.CUT: 2,
    Kind.REFUSE: 2,
}
"""Faults of one task, with their weights."""

_ANY_REDIS = {Kind.FREEZE_REDIS: 3, Kind.RESTART_REDIS: 2, Kind.FAILOVER: 4, Kind.STEP_CLOCK: 4}
REDIS_OF = {
    Redis.SERVER: {**_ANY_REDIS, Kind.ISOLATE: 4},
    Redis.CLUSTER: {**_ANY_REDIS, Kind.BY_HAND: 4, Kind.OUTAGE: 5, Kind.MIGRATE: 6},
    Redis.SENTINELS: {**_ANY_REDIS, Kind.BY_HAND: 5, Kind.OUTAGE: 3, Kind.UNSEEN: 6},
}
"""Faults of each kind of Redis, with their weights."""
REDIS = frozenset(kind for kinds in REDIS_OF.values() for kind in kinds)
POSTGRES = {Kind.RESTART_POSTGRES: 2, Kind.FREEZE_POSTGRES: 1}
OPERATOR = {Kind.DELETE: 3, Kind.DISABLE: 1, Kind.PERSIST: 2}

_Group = tuple[dict[Kind, int], int, float]


def groups_of(redis: Redis, only: Collection[Kind]) -> tuple[_Group, ...]:
    """Return the groups of faults: faults, weight, and minimum pause in ttls between two faults of the group.

    Faults of the group TASK may overlap. With `only`, the groups contain these faults alone.
    """
    of_redis = (REDIS_OF[redis], 4, 2.0) if redis is Redis.SERVER else (REDIS_OF[redis], 8, 0.7)
    groups = (TASK, 13, 0.0), of_redis, (POSTGRES, 1, 1.0), (OPERATOR, 3, 0.7)
    if not only:
        return groups
    chosen = [{kind: group[kind] for kind in group if kind in only} for group, _, _ in groups]
    return tuple(
        (kinds, weight if kinds else 0, apart) for kinds, (_, weight, apart) in zip(chosen, groups, strict=True)
    )


LASTING = {
    Kind.FREEZE_SIDECAR,
    Kind.FREEZE_API,
    Kind.FREEZE_TASK,
    Kind.FREEZE_WRITER,
    Kind.SLOW,
    Kind.BLACK_HOLE,
    Kind.LATE_REQUESTS,
    Kind.LOST_REPLIES,
    Kind.REFUSE,
    Kind.FREEZE_REDIS,
    Kind.RESTART_REDIS,
    Kind.FAILOVER,
    Kind.ISOLATE,
    Kind.OUTAGE,
    Kind.MIGRATE,
    Kind.RESTART_POSTGRES,
    Kind.FREEZE_POSTGRES,
}

LENGTHS = (0.05, 0.3), (0.5, 0.95), (1.0, 1.4)
"""Durations of faults as shares of the ttl: up to about GRANT_TTL, around a term's deadline, longer than the ttl."""

LONGEST_FREEZE = 2.5
"""Maximum time, in ttls, that a writer stays frozen while no newer term has claimed the fence."""

CALM = Kind.DEPLOY, Kind.DEPLOY, Kind.KILL_API, Kind.KILL_TASK
"""Faults that are measured in the calm; a deploy is as frequent as the other two together."""

STORM = 8.0
"""Duration of a storm, in ttls, unless the whole run is too short for it."""
PACE = 0.4
"""Mean time between two faults, in ttls."""
CALM_TAKES = 2.0
"""Approximate duration of a calm, in ttls; a calm ends when its conditions are true."""


@dataclass(frozen=True)
class Fault:
    """One fault: `at` seconds after the start of its round, for `seconds` (a maximum if an event ends the fault).

    `target` is a task (`task2`) or a lease; it is empty for a fault of Redis or Postgres. A lease stands for the task
    that leads it at the time, or for its key if the operator acts. `detail` is a share from 0 to 1 for other choices,
    such as a replica's lag or how Postgres stops.
    """

    at: float
    kind: Kind
    target: str
    seconds: float
    detail: float

    def __str__(self) -> str:
        lasting = f" for {self.seconds:.2f} s" if self.seconds else ""
        return f"{self.kind}{' of ' if self.target else ''}{self.target}{lasting}"


@dataclass(frozen=True)
class Round:
    """A storm of `seconds`, then a calm with one fault."""

    number: int
    seconds: float
    faults: tuple[Fault, ...]
    calm: Fault


def plan(
    seed: int,
    minutes: float,
    tasks: int,
    ttl: float,
    *,
    isolating: bool = False,
    redis: Redis = Redis.SERVER,
    only: Collection[Kind] = (),
) -> tuple[Round, ...]:
    """Return the rounds that fit into `minutes`, at least one. The same arguments give the same rounds.

    Without `isolating`, the schedule has a failover in place of each isolation of the primary. With `only`, the storms
    have these faults alone.
    """
    chance = random.Random(f"chaos {seed} {tasks}")
    storm = min(STORM * ttl, max(minutes * 60 - CALM_TAKES * ttl, ttl))
    count = max(1, int(minutes * 60 / (storm + CALM_TAKES * ttl)))
    return tuple(
        Round(
            number,
            storm,
            tuple(_storm(chance, storm, tasks, ttl, isolating=isolating, groups=groups_of(redis, only))),
            Fault(0.0, chance.choice(CALM), chance.choice(LEASES), 0.0, chance.random()),
        )
        for number in range(1, count + 1)
    )


def _storm(
    chance: random.Random, storm: float, tasks: int, ttl: float, *, isolating: bool, groups: tuple[_Group, ...]
) -> Iterator[Fault]:
    free_from = [0.0] * len(groups)  # earliest next fault of each group; 0 for TASK, whose faults may overlap
    at = chance.expovariate(1 / (PACE * ttl))
    while at < storm:
        which = chance.choices(range(len(groups)), [weight for _, weight, _ in groups])[0]
        if at < free_from[which]:
            which = 0
        group, _, apart = groups[which]
        if not group:
            at += chance.expovariate(1 / (PACE * ttl))
            continue
        kind = chance.choices(list(group), list(group.values()))[0]
        if kind is Kind.ISOLATE and not isolating:
            kind = Kind.FAILOVER
        seconds = chance.uniform(*chance.choice(LENGTHS)) * ttl if kind in LASTING else 0.0
        if kind is Kind.DISABLE:
            seconds = chance.uniform(1.0, 1.5) * ttl  # at least a ttl, so that DISABLED outlasts every belief
        if kind is Kind.FREEZE_WRITER:
            seconds = LONGEST_FREEZE * ttl
        if (kind in POSTGRES or kind in REDIS) and seconds:
            seconds = min(seconds, 1.1 * ttl)
        if kind is Kind.ISOLATE:
            seconds = chance.uniform(1.5, 2.5) * ttl  # long enough for a new term on the promoted replica
        if which:
            free_from[which] = at + seconds + apart * ttl
        target = chance.choice(LEASES) if kind is Kind.FREEZE_WRITER else _target(chance, kind, tasks)
        yield Fault(at, kind, target, seconds, chance.random())
        at += chance.expovariate(1 / (PACE * ttl))


def _target(chance: random.Random, kind: Kind, tasks: int) -> str:
    if kind in OPERATOR:
        return chance.choice(LEASES)
    if kind not in TASK:
        return ""
    if chance.random() < 0.6:  # faults of a leader matter most
        return chance.choice(LEASES)
    return f"task{chance.randrange(tasks) + 1}"
