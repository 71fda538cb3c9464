"""The words of the protocol: what a candidate may do in Redis, what comes of it, and the durations that bind both."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

YIELD = 1.0
"""For how long, in seconds, a candidate whose client resigned leaves the lease to the others."""
ECHO = 0.005
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

    @property
    def clock_lasts(self) -> float:
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


@dataclass(slots=True)
class Term:
    """A term of ours: believed until `lead_until`; `granted` once a client was told.

    It is one `client`'s, by the name that it gives itself ('': no such client's yet; None: a client's that a process
    before this one told): two with one token would both pass the fence.

    The `tenure` names the attempt that won it, or that took it up again: calls of an earlier stretch of the same term
    (before a restart of the sidecar, or a release that was never answered) that execute late do not touch a later one.
    """

    token: int
    tenure: str
    began: float
    lead_until: float
    client: str | None = ""
    granted: bool = False


class Transition(NamedTuple):
    """A term began or ended, or the lease was found in other hands (`token` None)."""

    leads: bool
    token: int | None
    reason: str


class View(NamedTuple):
    """The lease as its candidate sees it at one instant."""

    state: State
    holder: str | None
    token: int | None
    version: int
