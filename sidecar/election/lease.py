"""The rules of one lease: what happened goes in, what to do comes out. No I/O, and no clock of its own.

Every method takes `now`, in seconds of a clock that never steps (`sidecar.clock.elapsed`). Whoever drives a `Lease`
(`candidate`, or a simulator) asks `next_call` what to do, carries the call to Redis, and hands what came of it
to `replied` or `failed`; between calls it sleeps until `wake_at`. Nothing is decided by an event alone: events change
facts, and `next_call` looks at the facts. So no wake-up can be lost while a call is under way.

Time model: a call's deadlines count from before it was sent. A term is believed until `sent_at + ttl - margin`, where
`margin` is a sixth of the ttl; the key in Redis lives on for the margin at least. Clock rates may differ, and the
server's clock may step, by as much as the margin allows; clocks of different machines are never compared.
"""

from collections.abc import Callable
from math import inf

from sidecar.election.demand import Demand
from sidecar.election.grants import Grants
from sidecar.election.protocol import (
    ECHO,
    YIELD,
    Call,
    Kind,
    Outcome,
    Reason,
    Reply,
    State,
    Term,
    Timings,
    Transition,
    View,
)
from sidecar.election.unanswered import Unheard


class Lease:
    """One lease of one candidate.

    Args:
        instance_id: this candidate's name, the value of the key while it holds the lease.
        timings: see `Timings`.
        boot: another word at every start of the process, without spaces: a predecessor of the same id may have calls
            under way.
        now: the time of the process's start: a predecessor's client may act on its word until `now + grant_ttl`.
        uniform: `random.uniform`; spreads retries and the rush at an expiry.
        require_client: campaign only while a client asks.
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
    ) -> None:
        self.instance_id = instance_id
        self.timings = timings
        self._boot = boot
        self._uniform = uniform
        self._term: Term | None = None  # led, or at least not yet given up
        self._leaving: Term | None = None  # given up, its key still to be deleted
        self._former: Term | None = None  # ended last: taken up again under its token it is its client's still
        self._attempts = 0  # to acquire; each brings a tenure of its own
        self._predecessor_acts_until = now + timings.call_limit  # a call of a process that was killed may execute late
        self._grants = Grants(now + timings.grant_ttl)
        self._demand = Demand(timings.demand, always=not require_client)
        self._yield_until = -inf
        self._drain_until: float | None = None
        self._in_flight: Call | None = None
        self._due = now  # when the next call is to be made, if one is wanted
        self._noticed = False  # something changed while a call was in flight
        self._unheard = Unheard()  # acquires that may have executed

        self._outcome: Outcome | None = None
        self._fresh = True  # Redis has not yet said how the key stands: a term found may be a predecessor's
        self._connected: bool | None = None  # until Redis has answered about it, or failed to
        self._holder: str | None = None
        self._led: bool | None = None  # as last told by a transition
        self._transitions: list[Transition] = []
        self._version = 0
        self._view = View(State.WAITING, None, None, 0)

    # What the client does.

    def asked(self, now: float) -> None:
        """A client asked: to ask is to campaign."""
        if not self._demand.there(now):
            self._hurry(now)
        self._demand.asked(now)

    def hold(self) -> int:
        """A client's request is held back and counts as asking; returns the ticket for `unhold`."""
        return self._demand.hold()

    def unhold(self, ticket: int, now: float, *, answered: bool) -> None:
        """The held request has ended: `answered`, or its client is gone. One from before a resign counts no more."""
        self._demand.unhold(ticket, now, answered=answered)

    def stands_for(self, now: float, client: str, token: int | None = None) -> float:
        """Seconds for which a client's answer stays the same unless the version changes; `token` as for `grant`."""
        ttl, knows = self.timings.grant_ttl, self._knows(token)
        return self._grants.stands_for(now, client, ttl, knows_term=knows) if self.leads(now) else inf

    def grant(self, arrived: float, now: float, client: str = "", token: int | None = None) -> float | None:
        """For how long, counted from `arrived`, the `client` that asked then may act; None if it may not.

        From here on the lease is not given up by our own will before that time has passed or the client has resigned,
        and no other client that names itself may act: of a server's workers one leads. When that one has fallen silent,
        another needs a term of its own. `token` is of the last term that the client was granted.
        """
        term = self._term
        if term is None or not self.leads(now) or self._grants.taken_for(now, client, knows_term=self._knows(token)):
            return None
        if client and term.client not in ("", client) and (term.client or term.token != token):
            self._leave(term, Reason.CLIENT_SILENT, now)
            return None
        until = min(term.lead_until, max(arrived, term.began) + self.timings.grant_ttl)
        if until <= now:
            return None
        term.granted, term.client = True, client or term.client
        self._grants.give(client, until)
        return until - arrived

    def resigned(self, now: float, token: int | None = None, client: str = "") -> bool:
        """The client says that its work has stopped and that it wants the lease no longer, or that term of it.

        False if the term is over already: the lease may stand under a newer one, which is not given up. False, too,
        while another client of this task may act.
        """
        term = self._term
        if token is not None and (term is None or term.token != token):
            return False
        self._demand.withdraw()
        self._version += 1  # held requests are answered, whatever the state: who wants it still asks again
        unknown = term is None and self._fresh  # whose it was may act on
        if not unknown and not self._grants.take_back(now, client, knows_term=self._knows(token)):
            return False
        if term is not None:
            self._yield_until = now + YIELD
            self._leave(term, Reason.RESIGNED, now)
        elif self._in_flight is not None and self._in_flight.kind is Kind.ACQUIRE:
            self._yield_until = now + YIELD
        return True

    def drain(self, now: float) -> None:
        """Campaign no more; give the lease up once the client has resigned or its last grant has run out."""
        if self._drain_until is None:
            self._drain_until = now + self.timings.grant_ttl + 3 * self.timings.call_limit

    def drained(self, now: float) -> bool:
        """Whether nothing is left to give up, or not in any sensible time."""
        if self._drain_until is None:
            return False
        busy = self._term or self._leaving or self._in_flight or self._unheard.pending
        return not busy or now >= self._drain_until

    # What Redis does.

    def noticed(self, now: float) -> None:
        """Something happened to the key: look at it at once."""
        if self._in_flight is not None:
            self._noticed = True
        elif self._term is not None:
            self._hurry(now + ECHO)
        elif self._outcome is not Outcome.UNCONFIRMED:  # else we heard our own write, and wait for the replicas
            self._hurry(now)

    def replied(self, call: Call, reply: Reply, now: float) -> None:
        """`call` was answered."""
        self.tick(now)  # an answer that is late does not revive what has run out
        self._in_flight = None
        self._connected = True
        late_again = self._outcome is Outcome.LATE
        self._outcome = reply.outcome
        if reply.outcome is not Outcome.LATE:
            self._holder = reply.holder
        if reply.holder not in (None, self.instance_id):
            self._yield_until = -inf  # another one has had it: no need to wait
        if reply.outcome in (Outcome.LATE, Outcome.UNCONFIRMED):
            mended = reply.outcome is Outcome.LATE and not late_again  # the server's clock is known better now
            self._due = now if mended else now + self._pause()
            if reply.outcome is Outcome.UNCONFIRMED and call.kind is Kind.ACQUIRE:
                self._unheard.may_execute(until=now)
        elif call.kind is Kind.ACQUIRE:
            self._acquire_replied(call, reply, now)
        elif call.kind is Kind.RENEW:
            self._renew_replied(call, reply, now)
        else:
            self._release_replied(call, reply, now)
        self._fresh = self._fresh and reply.outcome in (Outcome.LATE, Outcome.UNCONFIRMED)
        if self._noticed:
            self._noticed = False
            self.noticed(now)

    def failed(self, call: Call, now: float, *, may_execute: bool) -> None:
        """`call` got no answer; it `may_execute` until `give_up_at`, unless it is known not to have been delivered."""
        self._in_flight = None
        self._noticed = False
        self._connected = False
        self._due = now + self._pause()
        if may_execute and call.kind is Kind.ACQUIRE:
            self._unheard.may_execute(until=call.give_up_at)

    # What to do.

    def next_call(self, now: float) -> Call | None:
        """The call to make now, from this instant on in flight; None if there is none, or one is."""
        self.tick(now)
        if self._in_flight is not None or now < self._due or now >= (self._drain_until or inf):
            return None
        if self._leaving is not None:
            if now < self._grants.until:
                return None
            call = self._call(Kind.RELEASE, now, self._leaving)
        elif self._term is not None:
            if self._drain_until is not None:
                return None
            call = self._call(Kind.RENEW, now, self._term)
        elif self._campaigns(now):
            call = self._call(Kind.LOOK if now < self._yield_until else Kind.ACQUIRE, now)
        elif self._unheard.pending and now >= self._unheard.until:
            call = self._call(Kind.LOOK, now)
        else:
            return None
        self._in_flight = call
        return call

    def tick(self, now: float) -> None:
        """Let time pass: end what has run out."""
        term = self._term
        if term is not None and now >= term.lead_until:
            self._end(Reason.DEADLINE, now)
            self._unheard.may_execute(until=now)  # the key may be ours still
        elif term is not None and now >= self._leave_at(term):
            self._leave(term, Reason.DRAINED if self._drain_until is not None else Reason.CLIENT_SILENT, now)
        if self._leaving is not None and now >= self._leaving.lead_until + self.timings.margin:
            self._leaving = None  # its key has expired
            self._hurry(now)

    def wake_at(self, now: float) -> float:
        """When `next_call` is to be asked again, if nothing happens before."""
        times = [self._demand.until if self._demand.until > now else inf, self._drain_until or inf]
        if self._term is not None:
            times += [self._term.lead_until, self._leave_at(self._term)]
        if self._in_flight is None:
            if self._leaving is not None:
                times.append(max(self._due, self._grants.until))
            elif self._campaigns(now) or (self._term and self._drain_until is None):
                times.append(self._due)
            elif self._term is None and self._unheard.pending:
                times.append(max(self._due, self._unheard.until))
        return min(times)

    # What is so.

    def leads(self, now: float) -> bool:
        """Whether this candidate leads at this instant: asked of the clock, never remembered."""
        return self._term is not None and self._drain_until is None and now < self._term.lead_until

    def remaining(self, now: float) -> float:
        """Seconds until the term ends unless it is renewed; 0 without one."""
        return self._term.lead_until - now if self._term is not None and self.leads(now) else 0.0

    def view(self, now: float) -> View:
        """The lease at this instant. The version differs from an earlier view's if anything in it does."""
        state = self._state(now)
        term = self._term if state is State.LEADING else None
        holder = self.instance_id if term else self._holder if self._connected and self._demand.there(now) else None
        token = term.token if term else None
        if (state, holder, token) != self._view[:3]:
            self._version += 1
        if self._version != self._view.version:
            self._view = View(state, holder, token, self._version)
        return self._view

    def known(self) -> bool:
        """Whether anything is known of it: Redis has answered about it, or failed to."""
        return self._connected is not None

    def transitions(self) -> list[Transition]:
        """What has begun and ended since this was last asked, oldest first."""
        taken, self._transitions = self._transitions, []
        return taken

    def _state(self, now: float) -> State:
        if self._drain_until is not None:
            return State.DRAINING
        if self.leads(now):
            return State.LEADING
        if not self._demand.there(now):
            return State.WAITING
        if not self._connected:
            return State.DISCONNECTED
        if self._outcome is Outcome.DISABLED:
            return State.DISABLED
        return State.GUARDED if self._outcome is Outcome.GUARDED else State.FOLLOWING

    def _knows(self, token: int | None) -> bool:
        """Whether the term is no predecessor's client's, or that of who can say its token."""
        return self._term is None or self._term.client is not None or self._term.token == token

    def _campaigns(self, now: float) -> bool:
        return self._drain_until is None and self._demand.there(now)

    def _leave_at(self, term: Term) -> float:
        """When the lease is given up unless somebody asks: never before the last grant has run out."""
        if self._drain_until is not None:
            return self._grants.until
        if self._demand.stands:
            return inf
        return self._grants.until if term.granted else max(self._grants.until, self._demand.until)

    def _acquire_replied(self, call: Call, reply: Reply, now: float) -> None:
        if reply.outcome not in (Outcome.ACQUIRED, Outcome.ADOPTED):
            self._due = now + self._follow(reply)
            if self._campaigns(now) and self._led is None:
                self._tell(leads=False, token=None, reason=reply.outcome)
            return
        self._unheard.answered(call.sent_at)
        assert reply.token is not None  # noqa: S101 - the scripts' contract: a term has a token
        until = self._believed_until(call, reply)
        client = self._client_of(reply.token) if reply.outcome is Outcome.ADOPTED else ""
        term = Term(reply.token, call.tenure, began=now, lead_until=until, client=client)
        if self._campaigns(now) and self._yield_until <= now < term.lead_until:
            self._term = term
            self._due = call.sent_at + self.timings.heartbeat
            self._tell(leads=True, token=term.token, reason=reply.outcome)
        else:
            self._give_up(term, now)

    def _client_of(self, token: int) -> str | None:
        """Whose a term is that is taken up again: no other client may have its token, though this one fell silent."""
        if self._fresh:
            return None
        return self._former.client if self._former is not None and self._former.token == token else ""

    def _renew_replied(self, call: Call, reply: Reply, now: float) -> None:
        term = self._term
        if term is None or term.token != call.token:
            return
        if reply.outcome is Outcome.RENEWED:
            until = self._believed_until(call, reply)
            term.lead_until = max(term.lead_until, until)
            due = until - (self.timings.ttl - self.timings.margin) + self.timings.heartbeat
            self._due = max(due, now + self.timings.retry)
        else:
            self._end(reply.outcome, now)
            self._due = now + (self._follow(reply) if reply.holder else 0.0)

    def _release_replied(self, call: Call, reply: Reply, now: float) -> None:
        if call.kind is Kind.LOOK and self._campaigns(now):
            others = reply.holder not in (None, self.instance_id)
            self._due = now + self._follow(reply) if others else max(now, self._yield_until)
            return
        left, self._leaving = self._leaving, None
        self._unheard.answered(call.sent_at)
        self._due = max(now, self._yield_until)
        if reply.outcome is Outcome.SUPERSEDED and reply.token is not None and self._brought(reply, left):
            self._give_up(Term(reply.token, reply.tenure, began=now, lead_until=self._believed_until(call, reply)), now)

    def _brought(self, reply: Reply, left: Term | None) -> bool:
        """Whether an attempt of this process, or the last one of its predecessor, brought the tenure that was found."""
        late = left is not None and left.token == reply.token and left.began < self._predecessor_acts_until
        return late or reply.tenure.startswith(f"{self._boot}-")

    def _believed_until(self, call: Call, reply: Reply) -> float:
        return call.sent_at + min(reply.ttl or 0.0, self.timings.ttl) - self.timings.margin

    def _follow(self, reply: Reply) -> float:
        """Seconds until a follower calls again: at the expiry or the guard's end; a heartbeat is the floor."""
        floor = self.timings.heartbeat * self._uniform(0.9, 1.0)
        rest = reply.wait if reply.outcome is Outcome.GUARDED else reply.ttl
        return floor if rest is None else min(floor, rest + self._uniform(0.001, 0.004))

    def _pause(self) -> float:
        return self.timings.retry * self._uniform(0.75, 1.25)

    def _hurry(self, due: float) -> None:
        self._due = min(self._due, due)

    def _call(self, kind: Kind, now: float, term: Term | None = None) -> Call:
        give_up_at = now + self.timings.call_limit
        token, tenure = (term.token, term.tenure) if term is not None else (None, "")
        if kind is Kind.RENEW and term is not None:
            give_up_at = min(give_up_at, term.lead_until)
        elif kind is Kind.ACQUIRE:
            self._attempts += 1
            tenure = f"{self._boot}-{self._attempts}"
        return Call(kind, now, min(give_up_at, self._drain_until or inf), token, tenure)  # a drain ends all

    def _leave(self, term: Term, reason: Reason, now: float) -> None:
        self._end(reason, now)
        if reason is Reason.CLIENT_SILENT:
            self._demand.fall_silent()
        self._give_up(term, now)

    def _give_up(self, term: Term, now: float) -> None:
        """Delete the key from now on, until an answer comes."""
        self._leaving = term
        self._due = now

    def _end(self, reason: str, now: float) -> None:
        term, self._term = self._term, None
        self._former = term
        self._tell(leads=False, token=term.token if term else None, reason=reason)
        self._hurry(now)

    def _tell(self, *, leads: bool, token: int | None, reason: str) -> None:
        self._led = leads
        self._transitions.append(Transition(leads, token, str(reason)))
