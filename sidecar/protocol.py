"""The words of the protocol: calls and replies, states, durations, and the estimate of the time at the Redis server."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

YIELD_FOR = 1.0
"""For how long, in seconds, a candidate whose client resigned leaves the lease to the others."""
ECHO_DELAY = 0.005
"""How long, in seconds, a leader puts off looking at a change of its key: most are its own, its client comes first."""


class Kind(StrEnum):
    """What a call does in Redis. A `LOOK` changes nothing there."""

    ACQUIRE = "acquire"
    RENEW = "renew"
    RELEASE = "release"
    LOOK = "look"


class Outcome(StrEnum):
    """What the scripts answer (`sidecar/scripts`); UNCONFIRMED where too few replicas have the write (MIN_REPLICAS)."""

    ACQUIRED = "acquired"
    ADOPTED = "adopted"
    RENEWED = "renewed"
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
    """Why a term began or ended, where that was not an outcome of Redis."""

    RESIGNED = "resigned"
    CLIENT_SILENT = "client_silent"
    DRAINED = "drained"
    DEADLINE = "deadline"


class State(StrEnum):
    """Where the lease stands for this candidate, as told to clients."""

    WAITING = "waiting"
    FOLLOWING = "following"
    LEADING = "leading"
    DRAINING = "draining"
    DISABLED = "disabled"
    GUARDED = "guarded"
    DISCONNECTED = "disconnected"


class UnsafeTimings(ValueError):
    """Timings under which the promises could not be kept; `wrong` says why, by the setting that is to be changed."""

    def __init__(self, wrong: dict[str, str]) -> None:
        super().__init__("\n".join(f"{setting}: {why}" for setting, why in wrong.items()))
        self.wrong = wrong


@dataclass(frozen=True, slots=True)
class Timings:
    """The durations of the protocol, in seconds.

    Raises:
        UnsafeTimings: a leader could miss its deadline while Redis answers, or outlive its lease.
    """

    ttl: float = 30.0
    heartbeat: float = 10.0
    grant_ttl: float = 5.0
    call_limit: float = 2.0

    def __post_init__(self) -> None:
        if wrong := dict(self._unsafe()):
            raise UnsafeTimings(wrong)

    def _unsafe(self) -> Iterator[tuple[str, str]]:
        if not 0.3 <= self.ttl <= 86_400:
            yield "LEASE_TTL", f"{self.ttl:g} s is not between 0.3 and 86400"
            return  # the others are measured by it
        if not self.heartbeat > 0:
            yield "HEARTBEAT_INTERVAL", f"{self.heartbeat:g} s is not above 0"
        if not self.call_limit >= 0.01:
            yield "REDIS_TIMEOUT", f"{self.call_limit:g} s is below 0.01"
        if not 0.05 <= self.grant_ttl <= min(self.ttl / 2, 30):
            limits = f"is not between 0.05 and 30, or above half of LEASE_TTL ({self.ttl:g} s)"
            yield "GRANT_TTL", f"{self.grant_ttl:g} s {limits}"
        if self.heartbeat + 2 * self.call_limit > self.ttl - self.margin:
            calls = f"two calls of REDIS_TIMEOUT ({self.call_limit:g} s)"
            limits = f"do not fit into five sixths of LEASE_TTL ({self.ttl:g} s)"
            yield "HEARTBEAT_INTERVAL", f"{self.heartbeat:g} s and {calls} {limits}"

    @property
    def margin(self) -> float:
        """What a term is believed less than its key lives: it pays for clock rates, small steps and the last commit."""
        return self.ttl / 6

    @property
    def retry(self) -> float:
        """The pause after a failed call."""
        return self.ttl / 30

    def believed_until(self, sent_at: float, ttl_left: float | None) -> float:
        """Until when a term is believed whose call was sent then and whose key has `ttl_left` seconds to live."""
        return sent_at + min(ttl_left or 0.0, self.ttl) - self.margin

    @property
    def server_time_valid_for(self) -> float:
        """For how long a reply's server time counts: a candidate that campaigns calls once a heartbeat."""
        return 2 * self.heartbeat

    @property
    def demand(self) -> float:
        """For how long a client that asked counts as there."""
        return 2 * self.grant_ttl


class Call(NamedTuple):
    """One attempt in Redis, without effect there after `give_up_at`.

    `token` and `tenure` name the term of a RENEW or RELEASE. An ACQUIRE brings the tenure that its term is to have.
    """

    kind: Kind
    sent_at: float
    give_up_at: float
    token: int | None = None
    tenure: str = ""


class Reply(NamedTuple):
    """What a script answered. `ttl` and `wait` are seconds; `ttl` is None for a key without one, and without a key."""

    outcome: Outcome
    holder: str | None = None
    token: int | None = None
    ttl: float | None = None
    wait: float = 0.0
    tenure: str = ""


class Transition(NamedTuple):
    """A term began or ended, or the lease was found in other hands (`token` None)."""

    leads: bool
    token: int | None
    reason: str


class View(NamedTuple):
    """A lease as its candidate sees it at one instant."""

    state: State
    holder: str | None
    token: int | None
    version: int


class LeaseStatus(NamedTuple):
    """A lease for listeners and metrics: its `View`, whether it is led and for how many seconds at least, its trouble.

    `trouble` is a line for people that says what is wrong with the lease; None if nothing is.
    """

    state: State
    holder: str | None
    token: int | None
    version: int
    leads: bool
    remaining: float
    trouble: str | None


class ServerClock:
    """An estimate that is never ahead of the server's clock, as long as neither clock has stepped since the last reply.

    Never ahead is the safe side: a deadline stated in it comes no later at the server than it does here. It lags by the
    time that the last reply took on its way.

    Args:
        lasts: seconds after which a reply says nothing any more, since the two clocks differ in rate. Without this a
            candidate that nobody asked for an hour would give its next call a deadline that is wrong by that hour's
            drift.
    """

    def __init__(self, lasts: float) -> None:
        self._lasts = lasts
        self._offset: float | None = None
        self._observed_at = 0.0

    def observe(self, server_time: int, received_at: float) -> None:
        """A reply that was received at `received_at` (s, our clock) said that it was `server_time` (µs) there."""
        self._offset = server_time / 1e6 - received_at
        self._observed_at = received_at

    def forget(self) -> None:
        """The next reply may come from another server."""
        self._offset = None

    def at(self, moment: float, now: float) -> int:
        """The server's time, in µs, at `moment` of our clock (s); 0, which has always passed, while unknown."""
        if self._offset is None or now > self._observed_at + self._lasts:
            return 0
        return int((moment + self._offset) * 1e6)
