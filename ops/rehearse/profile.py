"""How a rehearsal differs from production: timings, and how much load there is. Times are seconds."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ops.local.containers import Pace
from ops.local.definition import ContainerDefinition

SECRET = "a-secret-that-signs-tokens-of-a-rehearsal"  # noqa: S105 - the API is in a private network namespace

ALWAYS = {
    "MARKET_CALENDAR": "24/7",
    "TRACKER_INTERVAL": "1",
    "PRICE_SOURCE": "simulated",
    "AUTH": "supabase",
    "SUPABASE_URL": "https://rehearsalrehearsalre.supabase.co",
    "SUPABASE_JWT_SECRET": SECRET,
    "LOG_FORMAT": "text",
}
"""The market never closes, values move each second, and a secret of the rehearsal's signs the tokens."""

BESIDE = {"SUPABASE_JWT_SECRET": "SUPABASE_URL", "REDIS_TIMEOUT": "LEASE_TTL"}
"""A variable that the definition leaves out: a container gets it that has the other one."""


PACE = Pace(start_probe=1.0)
"""Health checks until the first that passes come each second; a container that ran for 5 s may be restarted."""


@dataclass(frozen=True)
class Profile:
    """One kind of rehearsal.

    Attributes:
        name: `short` or `long`.
        variables: what the containers get in place of the definition's values.
        deregistration_delay: from a target's deregistration to the end of its connections and SIGTERM; ECS: 300.
        settle: how long everything stays as it is after an event, before the next one: longer than a heartbeat.
        cut: how long a task is cut off.
        requests: requests a second.
        streams: streams that are open all the time.
    """

    name: str
    deregistration_delay: float
    settle: float
    cut: float
    requests: float
    streams: int
    variables: Mapping[str, str] = field(default_factory=dict)
    pace: Pace = PACE
    spot_notice: float = 120.0

    def changed(self, container: ContainerDefinition) -> dict[str, str]:
        """The container's environment, as far as it differs from the definition's."""
        wanted = ALWAYS | dict(self.variables)
        return {name: value for name, value in wanted.items() if BESIDE.get(name, name) in container.variables}


LONG = Profile("long", deregistration_delay=10.0, settle=12.0, cut=60.0, requests=20.0, streams=12)
SHORT = Profile(
    "short",
    deregistration_delay=2.0,
    settle=3.0,
    cut=10.0,
    requests=10.0,
    streams=6,
    variables={
        "LEASE_TTL": "6",
        "HEARTBEAT_INTERVAL": "2",
        "GRANT_TTL": "1.5",
        "REDIS_TIMEOUT": "1",
        "SHUTDOWN_TIMEOUT": "10",
    },
)
