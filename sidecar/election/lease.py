"""The rules of one lease as a state machine. No I/O, and no clock of its own.

Every method takes `now`, in seconds of a clock that never steps (`runtime.clock.elapsed`). The driver of a `Lease`
(`candidate`, or a simulator) asks `next_call` what to do, makes the call in Redis, and passes the result to `replied`
or `failed`. Between calls it sleeps until `wake_at`. Events change facts, and `next_call` looks at the facts: so no
wake-up is lost while a call is under way.

Time model: a call's deadlines count from before it was sent. A term is believed until `sent_at + ttl - margin`, where
`margin` is a sixth of the ttl; the key in Redis lives on for the margin at least. Clock rates may differ, and the
server's clock may step, by as much as the margin allows. Clocks of different machines are never compared.
"""

from collections.abc import Callable
from math import inf

from sidecar.election.claims import Demand, Grants, HeldTerm, TermOwner, UnansweredAcquires
from sidecar.protocol import ECHO_DELAY, YIELD_FOR, Call, Kind, Outcome, Reason, Reply, State, Timings, Transition, View


class Lease:
    """One lease of one candidate.

    Args:
        instance_id: this candidate's name, the value of the key while it holds the lease.
        timings: see `Timings`.
        boot: a word without spaces, different at every start of the process, because calls of an earlier process with
            the same id may be under way.
        now: the start of the process; a grant of an earlier process may last until `now + grant_ttl`.
        uniform: like `random.uniform`; spreads retries, and the calls of all candidates at an expiry.
        require_client: campaign only while a client asks.
        campaign: False for a candidate that follows only: it looks at the holder, and never tries to acquire.
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
    ) -> None:
        self.instance_id = instance_id
        self.follows_only = not campaign
        self.timings = timings
        self._boot = boot
        self._uniform = uniform
        self._term: HeldTerm | None = None  # the current term, until it ends
        self._to_release: HeldTerm | None = None  # ended, its key still to be deleted
        self._previous_term: HeldTerm | None = None  # re-adopted under the same token, it still belongs to its client
        self._attempts = 0  # acquires so far; each has a tenure of its own
        self._predecessor_acts_until = now + timings.call_limit  # calls of a killed process may execute until then
        self._grants = Grants(now + timings.grant_ttl)
        self._demand = Demand(timings.demand, always=not require_client)
        self._yield_until = -inf
        self._drain_until: float | None = None
        self._in_flight: Call | None = None
        self._due = now  # the time of the next call, if one is wanted
        self._noticed = False  # the key may have changed while a call was in flight
        self._unanswered = UnansweredAcquires()
        self._outcome: Outcome | None = None
        self._nothing_heard_yet = True  # no reply about the key yet: a term that is found may be a predecessor's
        self._connected: bool | None = None  # None before the first reply or failure
        self._holder: str | None = None
        self._reported_leading: bool | None = None  # by the last transition
        self._transitions: list[Transition] = []
        self._version = 0
        self._view = View(State.WAITING, None, None, 0)

    # Events of the clients.

    def asked(self, now: float) -> None:
        """Record that a client asked: to ask is to campaign."""
        if not self._demand.wanted(now):
            self._due = min(self._due, now)
        self._demand.asked(now)

    def hold(self) -> int:
        """Record that a client's request is held, which counts as asking; returns the ticket for `unhold`."""
        return self._demand.hold()

    def unhold(self, ticket: int, now: float, *, answered: bool) -> None:
        """Record the end of a held request: `answered`, or left by its client. An outdated ticket is ignored."""
        self._demand.unhold(ticket, now, answered=answered)

    def answer_valid_for(self, now: float, client: str, token: int | None = None) -> float:
        """Seconds for which a client's answer stays the same unless the version changes; `token` as for `grant`."""
        if not self.leads(now):
            return inf
        return self._grants.answer_valid_for(now, client, self.timings.grant_ttl, knows_term=self._admits(token))

    def grant(self, arrived: float, now: float, client: str = "", token: int | None = None) -> float | None:
        """Seconds, counted from `arrived`, for which the client that asked then may act; None if it may not.

        The lease is then not given up voluntarily before that time has passed or the client has resigned. No other
        named client may act meanwhile, so only one of several workers of a server leads. If that worker falls silent,
        another worker needs a new term.

        `client` is the name that the client gives itself, '' without one; `token` is the token of the last term that
        the client was granted.
        """
        term, admits = self._term, self._admits(token)
        held_by_other = self._grants.seconds_held_by_other_client(now, client, knows_term=admits)
        if term is None or not self.leads(now) or held_by_other:
            return None
        if client and not term.owner.admits(client, knows_token=term.token == token):
            self._end_and_release(term, Reason.CLIENT_SILENT, now)
            return None
        until = min(term.lead_until, max(arrived, term.began) + self.timings.grant_ttl)
        if until <= now:
            return None
        term.granted, term.owner = True, TermOwner(client) if client else term.owner
        self._grants.give(client, until)
        return until - arrived

    def resigned(self, now: float, token: int | None = None, client: str = "") -> bool:
        """Record that the client's work has stopped: all of its work, or only the work under the term of `token`.

        Returns False if that term is over: the lease may be held under a newer term, which is kept. Returns False also
        while another client of this task may act.
        """
        term = self._term
        if token is not None and (term is None or term.token != token):
            return False
        self._demand.withdraw()
        self._version += 1  # answers held requests in every state: a client that wants the lease asks again
        unknown = term is None and self._nothing_heard_yet  # a predecessor's client may act on
        if not unknown and not self._grants.take_back(now, client, knows_term=self._admits(token)):
            return False
        if term is not None:
            self._yield_until = now + YIELD_FOR
            self._end_and_release(term, Reason.RESIGNED, now)
        elif self._in_flight is not None and self._in_flight.kind is Kind.ACQUIRE:
            self._yield_until = now + YIELD_FOR
        return True

    def drain(self, now: float) -> None:
        """Stop campaigning; give the lease up after the client's resign or the end of its last grant."""
        if self._drain_until is None:
            self._drain_until = now + self.timings.grant_ttl + 3 * self.timings.call_limit

    def drained(self, now: float) -> bool:
        """Whether nothing is left to give up, or the time for it is over."""
        if self._drain_until is None:
            return False
        busy = self._term or self._to_release or self._in_flight or self._unanswered.pending
        return not busy or now >= self._drain_until

    # Events of Redis.

    def noticed(self, now: float) -> None:
        """The key may have changed: look at it at once."""
        if self._in_flight is not None:
            self._noticed = True
        elif self._term is not None:
            self._due = min(self._due, now + ECHO_DELAY)
        elif self._outcome is not Outcome.UNCONFIRMED:  # else the change is our own write, which waits for replicas
            self._due = min(self._due, now)

    def replied(self, call: Call, reply: Reply, now: float) -> None:
        """Record the reply to `call`."""
        self.tick(now)  # a late reply does not revive a term that has ended
        self._in_flight = None
        self._connected = True
        late_again = self._outcome is Outcome.LATE
        self._outcome = reply.outcome
        if reply.outcome is not Outcome.LATE:
            self._holder = reply.holder
        if reply.holder not in (None, self.instance_id):
            self._yield_until = -inf  # another candidate has held the lease, so this one need not wait
        if reply.outcome in (Outcome.LATE, Outcome.UNCONFIRMED):
            corrected = reply.outcome is Outcome.LATE and not late_again  # the reply corrected our server time
            self._due = now if corrected else now + self.timings.retry * self._uniform(0.75, 1.25)
            if reply.outcome is Outcome.UNCONFIRMED and call.kind is Kind.ACQUIRE:
                self._unanswered.may_execute(until=now)
        elif call.kind is Kind.ACQUIRE:
            self._acquire_replied(call, reply, now)
        elif call.kind is Kind.RENEW:
            self._renew_replied(call, reply, now)
        else:
            self._release_replied(call, reply, now)
        self._nothing_heard_yet = self._nothing_heard_yet and reply.outcome in (Outcome.LATE, Outcome.UNCONFIRMED)
        if self._noticed:
            self._noticed = False
            self.noticed(now)

    def failed(self, call: Call, now: float, *, may_execute: bool) -> None:
        """Record that `call` got no reply. It `may_execute` until its `give_up_at`, unless it was not delivered."""
        self._in_flight = None
        self._noticed = False
        self._connected = False
        self._due = now + self.timings.retry * self._uniform(0.75, 1.25)
        if may_execute and call.kind is Kind.ACQUIRE:
            self._unanswered.may_execute(until=call.give_up_at)

    # Decisions.

    def next_call(self, now: float) -> Call | None:
        """The call to make now, which is then in flight; None if no call is due, or one is in flight already."""
        self.tick(now)
        if self._in_flight is not None or now < self._due or now >= (self._drain_until or inf):
            return None
        if self._to_release is not None:
            if now < self._grants.until:
                return None
            call = self._call(Kind.RELEASE, now, self._to_release)
        elif self._term is not None:
            if self._drain_until is not None:
                return None
            call = self._call(Kind.RENEW, now, self._term)
        elif self._campaigns(now):
            looks = self.follows_only or now < self._yield_until
            call = self._call(Kind.LOOK if looks else Kind.ACQUIRE, now)
        elif self._unanswered.pending and now >= self._unanswered.until:
            call = self._call(Kind.LOOK, now)
        else:
            return None
        self._in_flight = call
        return call

    def tick(self, now: float) -> None:
        """End the term whose time is over, and the release whose key has expired."""
        term = self._term
        if term is not None and now >= term.lead_until:
            self._end(Reason.DEADLINE, now)
            self._unanswered.may_execute(until=now)  # the key may still be ours
        elif term is not None and now >= self._give_up_at(term):
            self._end_and_release(term, Reason.DRAINED if self._drain_until is not None else Reason.CLIENT_SILENT, now)
        if self._to_release is not None and now >= self._to_release.lead_until + self.timings.margin:
            self._to_release = None  # its key has expired
            self._due = min(self._due, now)

    def wake_at(self, now: float) -> float:
        """When to ask `next_call` again if nothing happens before."""
        times = [self._demand.until if self._demand.until > now else inf, self._drain_until or inf]
        if self._term is not None:
            times += [self._term.lead_until, self._give_up_at(self._term)]
        if self._in_flight is None:
            if self._to_release is not None:
                times.append(max(self._due, self._grants.until))
            elif self._campaigns(now) or (self._term and self._drain_until is None):
                times.append(self._due)
            elif self._term is None and self._unanswered.pending:
                times.append(max(self._due, self._unanswered.until))
        return min(times)

    # The state.

    def leads(self, now: float) -> bool:
        """Whether this candidate leads now: computed from the clock, never stored."""
        return self._term is not None and self._drain_until is None and now < self._term.lead_until

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

    def heard_from_redis(self) -> bool:
        """Whether Redis has replied about the lease, or failed to."""
        return self._connected is not None

    def transitions(self) -> list[Transition]:
        """The terms that began and ended since the last call of this method, oldest first."""
        transitions, self._transitions = self._transitions, []
        return transitions

    def _state(self, now: float) -> State:
        if self._drain_until is not None:
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
        """True unless the term belongs to a previous process's client that did not present its token."""
        return self._term is None or not self._term.owner.predecessors or self._term.token == token

    def _campaigns(self, now: float) -> bool:
        return self._drain_until is None and self._demand.wanted(now)

    def _give_up_at(self, term: HeldTerm) -> float:
        """When the lease is given up unless a client asks: never before the end of the last grant."""
        if self._drain_until is not None:
            return self._grants.until
        if self._demand.open_ended:
            return inf
        return self._grants.until if term.granted else max(self._grants.until, self._demand.until)

    def _acquire_replied(self, call: Call, reply: Reply, now: float) -> None:
        if reply.outcome not in (Outcome.ACQUIRED, Outcome.ADOPTED):
            self._due = now + self._follow(reply)
            if self._campaigns(now) and self._reported_leading is None:
                self._record_transition(leads=False, token=None, reason=reply.outcome)
            return
        self._unanswered.answered(call.sent_at)
        assert reply.token is not None  # noqa: S101 - the scripts' contract: a term has a token
        owner = self._owner_of(reply.token) if reply.outcome is Outcome.ADOPTED else TermOwner()
        term = HeldTerm(reply.token, call.tenure, now, self.timings.believed_until(call.sent_at, reply.ttl), owner)
        if self._campaigns(now) and self._yield_until <= now < term.lead_until:
            self._term = term
            self._due = call.sent_at + self.timings.heartbeat
            self._record_transition(leads=True, token=term.token, reason=reply.outcome)
        else:
            self._begin_release(term, now)

    def _owner_of(self, token: int) -> TermOwner:
        """The owner of an adopted term: no other client may get its token, even if the owner fell silent."""
        previous = self._previous_term
        if self._nothing_heard_yet:
            return TermOwner(predecessors=True)
        return previous.owner if previous is not None and previous.token == token else TermOwner()

    def _renew_replied(self, call: Call, reply: Reply, now: float) -> None:
        term = self._term
        if term is None or term.token != call.token:
            return
        if reply.outcome is Outcome.RENEWED:
            until = self.timings.believed_until(call.sent_at, reply.ttl)
            term.lead_until = max(term.lead_until, until)
            renew_at = until - (self.timings.ttl - self.timings.margin) + self.timings.heartbeat
            self._due = max(renew_at, now + self.timings.retry)
        else:
            self._end(reply.outcome, now)
            self._due = now + (self._follow(reply) if reply.holder else 0.0)

    def _release_replied(self, call: Call, reply: Reply, now: float) -> None:
        if call.kind is Kind.LOOK and self._campaigns(now):
            others = reply.holder not in (None, self.instance_id)
            follows = others or self.follows_only
            self._due = now + self._follow(reply) if follows else max(now, self._yield_until)
            if self._reported_leading is None:
                self._record_transition(leads=False, token=None, reason=reply.outcome)
            return
        left, self._to_release = self._to_release, None
        self._unanswered.answered(call.sent_at)
        self._due = max(now, self._yield_until)
        if reply.outcome is Outcome.SUPERSEDED and reply.token is not None and self._won_by_lost_call(reply, left):
            until = self.timings.believed_until(call.sent_at, reply.ttl)
            self._begin_release(HeldTerm(reply.token, reply.tenure, now, until, TermOwner()), now)

    def _won_by_lost_call(self, reply: Reply, left: HeldTerm | None) -> bool:
        """Whether an acquire of this process, or the last one of its predecessor, won the tenure that was found."""
        late = left is not None and left.token == reply.token and left.began < self._predecessor_acts_until
        return late or reply.tenure.startswith(f"{self._boot}-")

    def _follow(self, reply: Reply) -> float:
        """Seconds until a follower calls again: until the expiry or the end of the guard, at most one heartbeat."""
        longest = self.timings.heartbeat * self._uniform(0.9, 1.0)
        rest = reply.wait if reply.outcome is Outcome.GUARDED else reply.ttl
        return longest if rest is None else min(longest, rest + self._uniform(0.001, 0.004))

    def _call(self, kind: Kind, now: float, term: HeldTerm | None = None) -> Call:
        give_up_at = now + self.timings.call_limit
        token, tenure = (term.token, term.tenure) if term is not None else (None, "")
        if kind is Kind.RENEW and term is not None:
            give_up_at = min(give_up_at, term.lead_until)
        elif kind is Kind.ACQUIRE:
            self._attempts += 1
            tenure = f"{self._boot}-{self._attempts}"
        return Call(kind, now, min(give_up_at, self._drain_until or inf), token, tenure)  # no call outlasts the drain

    def _end_and_release(self, term: HeldTerm, reason: Reason, now: float) -> None:
        self._end(reason, now)
        if reason is Reason.CLIENT_SILENT:
            self._demand.forget_answered()
        self._begin_release(term, now)

    def _begin_release(self, term: HeldTerm, now: float) -> None:
        """Delete the key, and try again until a reply comes."""
        self._to_release, self._due = term, now

    def _end(self, reason: str, now: float) -> None:
        term, self._term = self._term, None
        self._previous_term = term
        self._record_transition(leads=False, token=term.token if term else None, reason=reason)
        self._due = min(self._due, now)

    def _record_transition(self, *, leads: bool, token: int | None, reason: str) -> None:
        self._reported_leading = leads
        self._transitions.append(Transition(leads, token, str(reason)))
