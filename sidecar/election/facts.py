"""The facts about one lease of one candidate, and what follows from them at one instant.

`Lease` changes the facts; the module `lease` explains the time model.
"""

from collections.abc import Callable
from math import inf

from sidecar.election.claims import Demand, Grants, HeldTerm, UnansweredAcquires
from sidecar.election.rest import Rest
from sidecar.protocol import Call, Outcome, State, Timings, Transition, View

OWNER_UNKNOWN = (
    Outcome.LATE,
    Outcome.UNCONFIRMED,
    Outcome.GUARDED,
    Outcome.SUPERSEDED,
    Outcome.WRONG_TYPE,
    Outcome.BAD_FENCE,
    Outcome.FENCE_AHEAD,
)
"""Outcomes after which the key may still hold the term of a previous process of this candidate."""


class Facts:
    """The facts about one lease of one candidate.

    Args:
        instance_id: this candidate's name, the value of the key while it holds the lease.
        timings: see `Timings`.
        boot: a word without spaces, different at every start of the process, because calls of an earlier process with
            the same id may be under way.
        now: the start of the process; a grant of an earlier process may last until `now + grant_ttl`.
        uniform: like `random.uniform`; spreads retries, and the calls of all candidates at an expiry.
        require_client: campaign only while a client asks.
        campaign: False for a candidate that follows only: it looks at the holder, and never tries to acquire.
        replicated: replicas must confirm each write. The first renewal then follows the acquire at once, and records
            the acquire in the history.
    """

    def __init__(
        self,
        instance_id: str,
        timings: Timings,
        *,
        boot: str,
        now: float,
        uniform: Callable[[float, float], float],
        require_client: bool = True,
        campaign: bool = True,
        replicated: bool = False,
    ) -> None:
        self.instance_id = instance_id
        self.follows_only = not campaign
        self.timings = timings
        self._replicated = replicated
        self._boot = boot
        self._uniform = uniform
        self._term: HeldTerm | None = None  # the current term, until it ends
        self._to_release: HeldTerm | None = None  # a term that has ended, and whose key is to be deleted
        self._previous_term: HeldTerm | None = None  # if it is adopted again, it still belongs to its client
        self._attempts = 0  # acquires so far; each has a new tenure
        self._predecessor_acts_until = now + timings.call_limit  # calls of a killed process may execute until then
        self._grants = Grants(now + timings.grant_ttl)
        self._demand = Demand(timings.demand, always=not require_client)
        self._rest = Rest(timings.rest)
        self._drain_until: float | None = None
        self._in_flight: Call | None = None
        self._due = now  # the time of the next call, if one is wanted
        self._noticed = False  # the key may have changed while a call was in flight
        self._step_down_noticed = False  # an operator may have asked for a step-down while a call was in flight
        self._unanswered = UnansweredAcquires()
        self._outcome: Outcome | None = None
        self._nothing_heard_yet = True  # only OWNER_UNKNOWN so far: a term that is found may be a predecessor's
        self._connected: bool | None = None  # None before the first reply or failure
        self._holder: str | None = None
        self.watches_directly = True
        """Whether the candidate wants a direct watch; see `herd`."""
        self._watchers: int | None = None  # the number of candidates that watch, from the last reply that had it
        self._direct: int | None = None  # the number of those with a direct watch
        self._relay_noticed_at = -inf  # when a notice to be relayed came
        self._relay_at = inf  # when to relay the notice, if the lease is still vacant
        self._reported_leading: bool | None = None  # whether the last transition began a term; None before the first
        self._transitions: list[Transition] = []
        self._version = 0
        self._view = View(State.WAITING, None, None, 0)

    def leads(self, now: float) -> bool:
        """Whether this candidate leads now: computed from the clock, never stored."""
        return self._term is not None and not self._gives_up(self._term) and now < self._term.lead_until

    def remaining(self, now: float) -> float:
        """Seconds until the term ends unless it is renewed; 0 without a term."""
        return self._term.lead_until - now if self._term is not None and self.leads(now) else 0.0

    def view(self, now: float) -> View:
        """The lease as it is now. Two views that differ have different versions."""
        state = self._state(now)
        term = self._term if state is State.LEADING else None
        holder = self.instance_id if term else self._holder if self._connected and self._demand.wanted(now) else None
        token = term.token if term else None
        if (state, holder, token) != self._view[:3]:
            self._version += 1
        if self._version != self._view.version:
            self._view = View(state, holder, token, self._version)
        return self._view

    def step_down(self, now: float) -> str | None:
        """A line for people about a step-down of this candidate; None without one."""
        if self._stepping_down():
            return f"asked to step down: waits for its client, at most {max(0.0, self._grants.until - now):.1f} s"
        rests = self._rest.after_step_down(now)
        return f"stepped down: leaves the lease to others, at most {rests:.1f} s more" if rests else None

    def heard_from_redis(self) -> bool:
        """Whether Redis has replied about the lease, or a call has failed."""
        return self._connected is not None

    def _record_failure(self) -> None:
        """Record that a call has failed. The first failure ends the hold of requests that wait for the first reply."""
        if self._connected is None:
            self._version += 1
        self._connected = False

    @property
    def may_hold_key(self) -> bool:
        """Whether the key may have our id: a term is not released, or an acquire has no answer."""
        return not self._holds_nothing() or self._unanswered.pending

    def transitions(self) -> list[Transition]:
        """The transitions since the last call of this method, oldest first."""
        transitions, self._transitions = self._transitions, []
        return transitions

    def _state(self, now: float) -> State:
        if self._drain_until is not None or self._stepping_down():
            return State.DRAINING
        if self.leads(now):
            return State.LEADING
        if not self._demand.wanted(now):
            return State.WAITING
        if not self._connected:
            return State.DISCONNECTED
        if self._outcome is Outcome.DISABLED:
            return State.DISABLED
        return State.GUARDED if self._outcome is Outcome.GUARDED else State.FOLLOWING

    def _admits(self, token: int | None) -> bool:
        """False only if the term may belong to a previous process's client, and `token` is not the term's token."""
        term = self._term or self._to_release
        return term is None or not term.owner.predecessors or term.token == token

    def _holds_nothing(self) -> bool:
        """Whether there is neither a current term nor a term to release."""
        return self._term is None and self._to_release is None

    def _gives_up(self, term: HeldTerm) -> bool:
        """Whether the candidate has stopped leading, and waits for a resign or for the end of the last grant."""
        return self._drain_until is not None or term.step_down

    def _stepping_down(self) -> bool:
        term = self._term or self._to_release
        return term is not None and term.step_down

    def _campaigns(self, now: float) -> bool:
        return self._drain_until is None and self._demand.wanted(now)

    def _give_up_at(self, term: HeldTerm) -> float:
        """When the lease is given up unless a client asks: never before the end of the last grant."""
        if self._gives_up(term):
            return min(self._grants.until, term.lead_until)
        if self._demand.open_ended:
            return inf
        return self._grants.until if term.granted else max(self._grants.until, self._demand.until)
