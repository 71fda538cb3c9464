"""The nature of one simulated world: its timings, clocks, tasks and faults, all drawn from one seed."""

from dataclasses import dataclass, replace
from random import Random

from sidecar.protocol import Timings

LIFETIMES = 240
"""The length of a world in ttls: every world has the same number of lifetimes, whatever its timings."""

Mix = dict[str, float]

PROCESSES: Mix = {
    "client pause": 3,
    "client crash": 2,
    "sidecar pause": 3,
    "sidecar crash": 3,
    "task pause": 1.5,
    "task kill": 1.5,
    "client leaves": 2,
    "client starts over": 1,
    "sidecar drain": 0.7,
    "deploy": 1,
}
NETWORK: Mix = {"bad network": 4, "cut off": 2, "connections reset": 1, "deaf watch": 1}
REDIS: Mix = {
    "redis pause": 2,
    "redis error": 1,
    "redis restart": 1,
    "redis restart empty": 1,
    "failover": 1,
    "failover to a stale replica": 3,
    "server clock step": 2,
}
OPERATOR: Mix = {
    "DISABLED": 2,
    "PERSIST": 1,
    "DEL": 1,
    "short DISABLED": 1,
    "wrong type": 0.5,
    "bad fence": 0.5,
    "server clock jump": 0.5,
    "step-down": 4,
}
LATE: Mix = {
    "bad network": 4,
    "sidecar crash": 3,
    "sidecar drain": 3,
    "client starts over": 6,
    "client replaced": 2,
    "client leaves": 1,
    "redis pause": 4,
    "late release": 8,
    "late acquire": 6,
    "acquire cut short": 4,
    "release lost": 1,
    "server clock step": 1,
}
ISOLATION: Mix = {"isolated old primary": 6}
DEMOTION: Mix = {"late demotion": 6}

MIXES: dict[str, tuple[float, Mix]] = {
    "everything": (4, PROCESSES | NETWORK | REDIS),
    "processes": (2, PROCESSES),
    "network": (
        2,
        NETWORK | {"late release": 1, "late acquire": 1, "client leaves": 2, "sidecar crash": 1, "client crash": 1},
    ),
    "redis": (2, REDIS | {"client leaves": 3, "sidecar crash": 1, "step-down": 1}),
    "operator": (1, OPERATOR | PROCESSES | {"bad network": 2}),
    "isolation": (0.5, ISOLATION | NETWORK | {"client leaves": 2}),
    "replicas": (1.5, ISOLATION | REDIS | NETWORK | {"client leaves": 2, "sidecar crash": 1, "step-down": 1}),
    "sentinels": (1, DEMOTION | NETWORK | {"client leaves": 2, "sidecar crash": 1}),
    "late calls": (1, LATE),
    "quiet": (
        2,
        {
            "late acquire": 1,
            "acquire cut short": 1,
            "release lost": 1,
            "client leaves": 4,
            "client starts over": 1,
            "client crash": 1,
            "task kill": 1,
            "deploy": 1,
            "step-down": 2,
        },
    ),
}
"""Mixes of faults with their weights, and how often each mix is drawn. Only 'replicas' runs with MIN_REPLICAS."""

TTLS = {3.0: 1.0, 30.0: 4.5, 120.0: 1.0, 300.0: 1.0, 900.0: 3.0}
"""The ttls in seconds and their weights.

The weight of the default ttl, 30 s, is the highest at which a run of 100,000 h takes at most five minutes.
"""


DIRECT_FOR_EACH, RELAYED_FOR_EACH = 4, 40
"""Numbers of candidates that one candidate with a direct or with a relayed watch represents in a large fleet."""


MORE_TASKS = 2
"""The number of tasks by which a large fleet is larger than a small one."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """The nature of one world. Rates are seconds of a clock per true second; times are seconds."""

    mix: str
    faults: Mix
    pace: float
    """The mean time between two faults; some faults follow sooner, in a group."""
    timings: Timings
    tasks: int
    server_rate: float
    task_rates: tuple[float, ...]
    watch: str
    """How a candidate notices changes: `tracking`, `notices` (only releases and step-downs) or `off`."""
    guard: bool
    min_replicas: int
    require_client: bool
    late_demotion: float = 0.0
    """Seconds for which an old primary may serve after a promotion: a setting of the candidates."""
    follower: bool = False
    """Whether the last task only follows (CAMPAIGN=false)."""
    watchers: int | None = None
    """The number of candidates that the scripts report. It may be wrong. Each of them counts as a direct watch.

    None if the scripts are not permitted to count them.
    """
    large_fleet: bool = False
    """Whether the scripts report several candidates for each one that watches, as in a large fleet.

    `watchers` is then not used.
    """

    @property
    def length(self) -> float:
        return LIFETIMES * self.timings.ttl

    def watches(self, direct: int, relayed: int) -> tuple[int, int] | None:
        """The numbers of watches that the scripts report if `direct` and `relayed` are the true numbers.

        In a large fleet no campaigning candidate changes its watch while two or three watches are direct. A release
        notifies the relayed watches only if at most one watch is direct.
        """
        if self.large_fleet:
            return DIRECT_FOR_EACH * direct, RELAYED_FOR_EACH * relayed
        return None if self.watchers is None else (self.watchers, 0)

    def campaigns(self, task: int) -> bool:
        """Whether the task may lead."""
        return not self.follower or task < self.tasks - 1


def draw(random: Random, *, mix: str | None = None, ttl: float | None = None, pace: float | None = None) -> Scenario:
    """Draw a scenario; `mix`, `ttl` and `pace` (in ttls) fix those values."""
    names = list(MIXES)
    name = random.choices(names, [MIXES[each][0] for each in names])[0]
    seconds = random.choices(list(TTLS), list(TTLS.values()))[0]
    timings = _timings(random, ttl or seconds)
    name = mix or name
    tasks = random.choice((1, 1, 1, 2, 3) if name == "late calls" else (2, 2, 3, 3, 4))
    error = random.choice((0.0, 0.0005, 0.01, 0.02))
    scenario = Scenario(
        mix=name,
        faults=MIXES[name][1],
        pace=timings.ttl * (pace or random.choice((1.5, 4.0, 4.0, 10.0))),
        timings=timings,
        tasks=tasks,
        server_rate=1 + random.uniform(-error, error),
        task_rates=tuple(1 + random.uniform(-error, error) for _ in range(tasks)),
        watch=random.choice(("tracking", "notices", "notices", "off")),
        guard=True,
        min_replicas=int(name == "replicas"),
        late_demotion=timings.ttl * random.choice((0.3, 0.6, 1.5)) if name == "sentinels" else 0.0,
        require_client=random.random() < 0.9,
        follower=tasks > 1 and random.random() < 0.15,
        watchers=random.choice((None, tasks, tasks, 10, 300)),
    )
    if random.random() < 0.75:
        return scenario
    rates = tuple(1 + random.uniform(-error, error) for _ in range(MORE_TASKS))
    return replace(scenario, large_fleet=True, tasks=tasks + MORE_TASKS, task_rates=scenario.task_rates + rates)


def _timings(random: Random, ttl: float) -> Timings:
    kind = random.choices(("default", "patient", "hasty"), (6, 2, 1))[0]
    if kind == "default":
        return Timings(ttl, ttl / 3, min(ttl / 6, 30.0), ttl / 15)
    if kind == "patient":
        return Timings(ttl, ttl * 0.6, min(ttl / 2, 30.0), ttl / 10)
    return Timings(ttl, ttl / 6, min(ttl / 12, 10.0), ttl / 30)
