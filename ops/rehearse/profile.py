"""The differences of a rehearsal from production: timings and load. Times are in seconds."""

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
"""Variables for a market that never closes, values that change each second, and tokens signed with `SECRET`."""

BESIDE = {"SUPABASE_JWT_SECRET": "SUPABASE_URL", "REDIS_TIMEOUT": "LEASE_TTL"}
"""Variables that the definition omits. A container gets one of them if it has the variable on the right."""


PACE = Pace(start_probe=1.0)
"""Pace: health checks come each second until the first success; a container that ran for 5 s may restart."""


@dataclass(frozen=True)
class Profile:
    """One kind of rehearsal.

    Attributes:
        name: `short` or `long`, or `sizes` for `make sizes`.
        variables: values that replace the definition's.
        deregistration_delay: time from the deregistration of a target until its connections are closed and its task
            gets SIGTERM; in production 30.
        settle: pause after an event before the next one; longer than a heartbeat.
        cut: time for which a task is cut off.
        requests: requests per second.
        streams: number of streams that are kept open.
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
        """Return the variables of the container that differ from the definition."""
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
