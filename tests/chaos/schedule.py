"""What is done to the fleet and when: drawn from a seed before anything starts, so that a seed names a run.

A run is made of rounds. Each begins with a storm, in which faults overlap; then everything is healed, somebody has to
lead each lease, a writer of each lease is made stale, and one hand-over or takeover is measured with nothing else going
on.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

LEASES = "background_services", "daily_scheduler"


class Kind(StrEnum):
    """A fault. Those that last have `seconds`; the others are over at once."""

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
"""Faults of one task, each with its weight."""

REDIS = {Kind.FREEZE_REDIS: 3, Kind.RESTART_REDIS: 2, Kind.FAILOVER: 4, Kind.STEP_CLOCK: 4, Kind.ISOLATE: 4}
POSTGRES = {Kind.RESTART_POSTGRES: 2, Kind.FREEZE_POSTGRES: 1}
OPERATOR = {Kind.DELETE: 3, Kind.DISABLE: 1, Kind.PERSIST: 2}

GROUPS = (TASK, 13, 0.0), (REDIS, 4, 2.0), (POSTGRES, 1, 1.0), (OPERATOR, 3, 0.7)
"""Each group, its weight, and how many ttls after one of its faults the next may come; those of TASK may overlap."""

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
    Kind.RESTART_POSTGRES,
    Kind.FREEZE_POSTGRES,
}

LENGTHS = (0.05, 0.3), (0.5, 0.95), (1.0, 1.4)
"""Between which shares of the ttl a fault lasts: a hiccup, about a grant or a call, and past a deadline."""

LONGEST_FREEZE = 2.5
"""How long, in ttls, a writer is frozen at most while no newer term has come to the database."""

CALM = Kind.DEPLOY, Kind.DEPLOY, Kind.KILL_API, Kind.KILL_TASK
"""What is measured in the calm; a deploy as often as the others together."""

STORM = 8.0
"""How long a storm lasts, in ttls."""
PACE = 0.4
"""The mean time from one fault to the next, in ttls."""
CALM_TAKES = 2.0
"""How long a calm takes about, in ttls: it ends when what it waits for has come."""


@dataclass(frozen=True)
class Fault:
    """One fault: `at` seconds after its round's beginning, for `seconds` (at most so long where an event ends it).

    `target` is a task (`task2`), or a lease: whichever task leads it then, or its key where the operator acts.
    `detail` is a share from 0 to 1 for whatever else is to be drawn: how far a replica lags, how Postgres is stopped.
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
    """A storm of `seconds`, then a calm with one fault of its own."""

    number: int
    seconds: float
    faults: tuple[Fault, ...]
    calm: Fault


def plan(seed: int, minutes: float, tasks: int, ttl: float, *, isolating: bool = False) -> tuple[Round, ...]:
    """The rounds of a run: as many as fit into `minutes`, at least one. The same arguments give the same rounds.

    Unless `isolating`, a primary that would be cut off dies instead.
    """
    chance = random.Random(f"chaos {seed} {tasks}")
    storm = min(STORM * ttl, max(minutes * 60 - CALM_TAKES * ttl, ttl))
    count = max(1, int(minutes * 60 / (storm + CALM_TAKES * ttl)))
    return tuple(
        Round(
            number,
            storm,
            tuple(_storm(chance, storm, tasks, ttl, isolating=isolating)),
            Fault(0.0, chance.choice(CALM), chance.choice(LEASES), 0.0, chance.random()),
        )
        for number in range(1, count + 1)
    )


def _storm(chance: random.Random, storm: float, tasks: int, ttl: float, *, isolating: bool) -> Iterator[Fault]:
    free_from = [0.0] * len(GROUPS)  # of each group but the tasks'
    at = chance.expovariate(1 / (PACE * ttl))
    while at < storm:
        which = chance.choices(range(len(GROUPS)), [weight for _, weight, _ in GROUPS])[0]
        if at < free_from[which]:
            which = 0
        group, _, apart = GROUPS[which]
        kind = chance.choices(list(group), list(group.values()))[0]
        if kind is Kind.ISOLATE and not isolating:
            kind = Kind.FAILOVER
        seconds = chance.uniform(*chance.choice(LENGTHS)) * ttl if kind in LASTING else 0.0
        if kind is Kind.DISABLE:
            seconds = chance.uniform(1.0, 1.5) * ttl  # no shorter than a lease: or it could end before a belief does
        if kind is Kind.FREEZE_WRITER:
            seconds = LONGEST_FREEZE * ttl
        if group in (POSTGRES, REDIS) and seconds:
            seconds = min(seconds, 1.1 * ttl)
        if kind is Kind.ISOLATE:
            seconds = chance.uniform(1.5, 2.5) * ttl  # long enough for its heir to let a new term begin
        if which:
            free_from[which] = at + seconds + apart * ttl
        target = chance.choice(LEASES) if kind is Kind.FREEZE_WRITER else _target(chance, group, tasks)
        yield Fault(at, kind, target, seconds, chance.random())
        at += chance.expovariate(1 / (PACE * ttl))


def _target(chance: random.Random, group: dict[Kind, int], tasks: int) -> str:
    if group is OPERATOR:
        return chance.choice(LEASES)
    if group is not TASK:
        return ""
    if chance.random() < 0.6:  # it is the leader to whom things matter
        return chance.choice(LEASES)
    return f"task{chance.randrange(tasks) + 1}"
