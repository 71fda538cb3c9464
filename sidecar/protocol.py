"""The types of the protocol: calls and replies, states, durations, and the estimate of the Redis server's time."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

YIELD_FOR = 1.0
"""Seconds for which a candidate leaves the lease to others after its client's resign."""
ECHO_DELAY = 0.005
"""Seconds from the notice of a change of the key until a leader looks at the key.

Most changes are the leader's own writes, so the leader answers its client first.
"""

RESIGN_ANSWER_DELAY = 0.005
"""Seconds by which the answers to a resign, and to the held requests that it ends, are delayed.

The next leader's calls go first.
"""

STEP_DOWN_NOTICE = "step-down"
"""Message on `KEY:changed` after an operator's step-down. It concerns the holder alone, and wakes no follower."""
RELAY_NOTICE = "released, relay"
"""Message on `KEY:changed` after a release in a large fleet.

It asks the candidates with a direct watch to relay the notice.
"""


class Kind(StrEnum):
    """The kind of a call to Redis.

    A `LOOK` does not change the lease. A `RELAY` looks; if the lease is vacant, it notifies the candidates with a
    relayed watch.
    """

    ACQUIRE = "acquire"
    RENEW = "renew"
    RELEASE = "release"
    LOOK = "look"
    RELAY = "relay"


class Outcome(StrEnum):
    """The outcome of a script (`sidecar/scripts`).

    UNCONFIRMED replaces the outcome of an acquire or a renewal that too few replicas have (MIN_REPLICAS).
    """

    ACQUIRED = "acquired"
    ADOPTED = "adopted"
    RENEWED = "renewed"
    STEPPING_DOWN = "stepping_down"
    RELEASED = "released"
    HELD = "held"
    VACANT = "vacant"
    DISABLED = "disabled"
    SUPERSEDED = "superseded"
    GUARDED = "guarded"
    WRONG_TYPE = "wrong_type"
    BAD_FENCE = "bad_fence"
    FENCE_AHEAD = "fence_ahead"
    LATE = "late"
    UNCONFIRMED = "unconfirmed"


class Reason(StrEnum):
    """The reason why a term ended, other than an outcome of Redis."""

    RESIGNED = "resigned"
    CLIENT_SILENT = "client_silent"
    DRAINED = "drained"
    DEADLINE = "deadline"
    STEP_DOWN = "step_down"


class ReleaseReason(StrEnum):
    """The reason of a release, as the history shows it.

    `DEMAND_GONE`: no client used the term, usually because the client had gone before the term began.
    """

    RESIGNED = "resigned"
    CLIENT_SILENT = "client silent"
    DRAIN = "drain"
    STEP_DOWN = "step-down"
    DEMAND_GONE = "demand gone"


class State(StrEnum):
    """The state of a lease for this candidate, as clients see it."""

    WAITING = "waiting"
    FOLLOWING = "following"
    LEADING = "leading"
    DRAINING = "draining"
    DISABLED = "disabled"
    GUARDED = "guarded"
    DISCONNECTED = "disconnected"


class UnsafeTimings(ValueError):
    """Timings with which the guarantees do not hold; `wrong` gives the reason for each setting that must change."""

    def __init__(self, wrong: dict[str, str]) -> None:
        super().__init__("\n".join(f"{setting}: {why}" for setting, why in wrong.items()))
        self.wrong = wrong


SHORTEST_HEARTBEAT = 0.05
"""Shortest heartbeat, in seconds, if the ttl is above 1.5 s: a shorter one would keep an idle sidecar busy."""


@dataclass(frozen=True, slots=True)
class Timings:
    """The durations of the protocol, in seconds.

    A `heartbeat` below the smaller of `SHORTEST_HEARTBEAT` and a thirtieth of the ttl is raised to that value.

    Raises:
        UnsafeTimings: a leader could miss its deadline while Redis answers, or outlive its lease.
    """

    ttl: float = 30.0
    heartbeat: float = 10.0
    grant_ttl: float = 5.0
    call_limit: float = 2.0

    def __post_init__(self) -> None:
        if self.heartbeat > 0:
            object.__setattr__(self, "heartbeat", max(self.heartbeat, min(SHORTEST_HEARTBEAT, self.shortest_renewal)))
        if wrong := dict(self._unsafe()):
            raise UnsafeTimings(wrong)

    def _unsafe(self) -> Iterator[tuple[str, str]]:
        if not 0.3 <= self.ttl <= 86_400:
            yield "LEASE_TTL", f"{self.ttl:g} s is not between 0.3 and 86400"
            return  # the other limits depend on it
        if not self.heartbeat > 0:
            yield "HEARTBEAT_INTERVAL", f"{self.heartbeat:g} s is not above 0"
        if not self.call_limit >= 0.01:
            yield "REDIS_TIMEOUT", f"{self.call_limit:g} s is below 0.01"
        if not 0.05 <= self.grant_ttl <= min(self.ttl / 2, 30):
            limits = f"is not between 0.05 and 30, or is above half of LEASE_TTL ({self.ttl:g} s)"
            yield "GRANT_TTL", f"{self.grant_ttl:g} s {limits}"
        if self.heartbeat + 2 * self.call_limit > self.ttl - self.margin:
            calls = f"two calls of REDIS_TIMEOUT ({self.call_limit:g} s)"
            limits = f"do not fit into five sixths of LEASE_TTL ({self.ttl:g} s)"
            yield "HEARTBEAT_INTERVAL", f"{self.heartbeat:g} s and {calls} {limits}"

    @property
    def margin(self) -> float:
        """The safety margin: a term ends this long before its key expires.

        It covers different clock rates and small clock steps.
        """
        return self.ttl / 6

    @property
    def shortest_renewal(self) -> float:
        """The shortest pause between the reply to a renewal and the next renewal, however short the heartbeat is."""
        return self.ttl / 30

    @property
    def retry(self) -> float:
        """The average pause after a failed call: short even if the ttl is long.

        Redis may answer again at once, and the lease may have no leader until the next call.
        """
        return min(self.shortest_renewal, 1.0)

    def believed_until(self, sent_at: float, ttl_left: float | None) -> float:
        """The time until which a candidate believes that it leads.

        Args:
            sent_at: when the call was sent.
            ttl_left: seconds until the key expires, as the reply says; None if the key has no ttl.
        """
        return sent_at + min(ttl_left or 0.0, self.ttl) - self.margin

    @property
    def server_time_valid_for(self) -> float:
        """The time for which a reply's server time is used: longer than the usual time between two calls."""
        return 2 * max(self.heartbeat, self.shortest_renewal)

    @property
    def rest(self) -> float:
        """The time for which a candidate leaves the lease to others after a step-down.

        Each other candidate makes a call within this time.
        """
        return 1.5 * self.heartbeat

    @property
    def demand(self) -> float:
        """The time for which a client's request counts as demand."""
        return 2 * self.grant_ttl


class Call(NamedTuple):
    """One attempt of a call. Times are seconds of the candidate's clock.

    The attempt changes nothing in Redis after `give_up_at`.

    `token` and `tenure` name the term of a RENEW or RELEASE. An ACQUIRE carries the tenure of its future term. `reason`
    says in the history why a RELEASE gives the term up.
    """

    kind: Kind
    sent_at: float
    give_up_at: float
    token: int | None = None
    tenure: str = ""
    reason: str = ""


class Reply(NamedTuple):
    """The reply of a script. `ttl` and `wait` are seconds; `ttl` is None if the key has no TTL, or if there is no key.

    `holder` is the value of the key, which may be empty; None without a key.

    `watchers` is the number of candidates that watch the lease at this server, and `direct` is the number of those with
    a direct watch; both are None if the script did not count them.
    """

    outcome: Outcome
    holder: str | None = None
    token: int | None = None
    ttl: float | None = None
    wait: float = 0.0
    tenure: str = ""
    watchers: int | None = None
    direct: int | None = None

    @property
    def shows_no_term(self) -> bool:
        """Whether nobody has a term: there is no holder, or the key has our id, but the fence was lost."""
        return self.holder is None or (self.outcome is Outcome.SUPERSEDED and self.token is None)


class Transition(NamedTuple):
    """The beginning or end of a term, or a first reply that gives this candidate no term (`token` None).

    `at` is the time of the change on the candidate's clock.
    """

    leads: bool
    token: int | None
    reason: str
    at: float


class View(NamedTuple):
    """A lease as its candidate sees it at one instant."""

    state: State
    holder: str | None
    token: int | None
    version: int


class LeaseStatus(NamedTuple):
    """A lease for listeners and metrics: the fields of its `View`, its leadership and its trouble.

    `leads` is true while this candidate leads the lease; `remaining` is the number of seconds until the term ends
    unless it is renewed. `trouble` is a line for people that says what is wrong with the lease; None if nothing is
    wrong. `step_down` is a line for people about a step-down that this candidate carries out; None without one.
    """

    state: State
    holder: str | None
    token: int | None
    version: int
    leads: bool
    remaining: float
    trouble: str | None
    campaigns: bool = True
    """False for a task that follows only."""
    step_down: str | None = None
    holder_remaining: float | None = None
    """Seconds until the holder's key expires unless it is renewed; None without a holder or a time limit."""


class ServerClock:
    """An estimate of the server's time.

    The estimate is behind the server's clock by the time that the last reply travelled. That is safe: the server
    reaches a deadline no later than this process does. Only steps and drift of the clocks since the last reply can put
    the estimate ahead.

    Args:
        valid_for: seconds after which a reply is not used any more, because the two clocks differ in rate.
    """

    def __init__(self, valid_for: float) -> None:
        self._valid_for = valid_for
        self._offset: float | None = None
        self._observed_at = 0.0

    def observe(self, server_time: int, received_at: float) -> None:
        """Record the server time (µs) of a reply that came at `received_at` (s, our clock)."""
        self._offset = server_time / 1e6 - received_at
        self._observed_at = received_at

    def at(self, moment: float, now: float) -> int:
        """The server's time, in µs, at `moment` of our clock (s); 0 (a past deadline) while that time is unknown."""
        if self._offset is None or now > self._observed_at + self._valid_for:
            return 0
        return int((moment + self._offset) * 1e6)
