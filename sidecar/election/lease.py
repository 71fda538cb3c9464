"""The rules of one lease as a state machine. The module does no I/O and reads no clock.

Every method takes `now`, in seconds of a clock that never steps (`runtime.clock.elapsed`). The driver of a `Lease`
(`candidate`, or a simulator) asks `next_call` what to do, makes the call to Redis, and passes the result to `replied`
or `failed`. Between calls it sleeps until `wake_at`. Events change facts, and `next_call` reads the facts, so no
wake-up is lost while a call is under way.

Time model: the deadlines of a call count from a moment before the call was sent. A candidate believes that it leads
until `sent_at + ttl - margin`, where `margin` is a sixth of the ttl; the key in Redis lives at least `margin` longer.
Clock rates may differ, and the server's clock may step, by as much as the margin allows. Clocks of different machines
are never compared.
"""

from math import inf

from sidecar.election import herd
from sidecar.election.claims import HeldTerm, TermOwner
from sidecar.election.facts import OWNER_UNKNOWN, Facts
from sidecar.protocol import ECHO_DELAY, Call, Kind, Outcome, Reason, ReleaseReason, Reply, Transition

_LEFT_FOR = {
    Reason.RESIGNED: ReleaseReason.RESIGNED,
    Reason.CLIENT_SILENT: ReleaseReason.CLIENT_SILENT,
    Reason.DRAINED: ReleaseReason.DRAIN,
    Reason.STEP_DOWN: ReleaseReason.STEP_DOWN,
}


class Lease(Facts):
    """One lease of one candidate; `Facts` explains the arguments."""

    # Events of the clients.

    def asked(self, now: float) -> bool:
        """Record that a client asked, which starts a campaign. Returns true if no client wanted the lease before."""
        begins = not self._demand.wanted(now)
        if begins:
            self._due = min(self._due, now)
        self._demand.asked(now)
        return begins

    def hold(self) -> int:
        """Record that a client's request is held, which counts as asking; returns the ticket for `unhold`."""
        return self._demand.hold()

    def unhold(self, ticket: int, now: float, *, answered: bool) -> None:
        """Record the end of a held request; see `Demand.unhold`."""
        self._demand.unhold(ticket, now, answered=answered)

    def answer_valid_for(self, now: float, client: str, token: int | None = None) -> float:
        """Seconds for which the answer to a client stays the same unless the version changes; `token` as in `grant`."""
        if not self.leads(now):
            return inf
        return self._grants.answer_valid_for(now, client, self.timings.grant_ttl, knows_term=self._admits(token))

    def grant(self, arrived: float, now: float, client: str = "", token: int | None = None) -> float | None:
        """Seconds for which the client may act, counted from `arrived`, the time of its request; None if it may not.

        The candidate then keeps the lease until that time has passed or the client has resigned, unless it loses the
        lease. No other named client may act meanwhile, so only one of several workers of a server leads. If that
        worker falls silent, another worker needs a new term.

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
        unknown = term is None and self._nothing_heard_yet  # a predecessor's client may still act
        if not unknown and not self._grants.take_back(now, client, knows_term=self._admits(token)):
            return False
        if term is not None:
            self._rest.resigned(now)
            self._end_and_release(term, Reason.RESIGNED, now)
        elif self._in_flight is not None and self._in_flight.kind is Kind.ACQUIRE:
            self._rest.resigned(now)
        return True

    def drain(self, now: float) -> None:
        """Stop campaigning; give the lease up after the client's resign or the end of its last grant."""
        if self._drain_until is None:
            self._drain_until = now + self.timings.grant_ttl + 3 * self.timings.call_limit

    def drained(self, now: float) -> bool:
        """Whether nothing is left to give up, or the time for giving up is over."""
        if self._drain_until is None:
            return False
        busy = self.may_hold_key or self._in_flight
        return not busy or now >= self._drain_until

    # Events of Redis.

    def noticed(self, now: float) -> None:
        """Record that the key may have changed.

        A leader checks the key after `ECHO_DELAY`. A candidate that campaigns makes a call at once, or within
        `herd.SPREAD` in a large fleet.
        """
        if self._in_flight is not None:
            self._noticed = True
        elif self._term is not None:
            self._due = min(self._due, now + ECHO_DELAY)
        elif self._outcome is not Outcome.UNCONFIRMED:  # else the change is our own write, which waits for replicas
            receivers = self._direct if self.watches_directly else self._watchers
            self._due = min(self._due, now + herd.delay(receivers, self._uniform))

    def relay_noticed(self, now: float) -> None:
        """Record the notice of a release that asks the candidates with a direct watch to relay the notice.

        If the lease is still vacant a little later, this candidate notifies the others.
        """
        self.noticed(now)
        if self._term is None:
            self._relay_noticed_at, self._relay_at = now, self._after_own_call(now)

    def step_down_noticed(self, now: float) -> None:
        """Record that an operator asked the holder to step down.

        The holder renews at once; other candidates do nothing.
        """
        self._step_down_noticed = self._in_flight is not None
        if self._term is not None:
            self._due = min(self._due, now)

    def replied(self, call: Call, reply: Reply, now: float) -> None:
        """Record the reply to `call`."""
        self.tick(now)  # a late reply does not revive a term that has ended
        self._in_flight = None
        if reply.watchers is not None:
            self._watchers, self._direct = reply.watchers, reply.direct
        nobody_acquires = reply.outcome is Outcome.GUARDED or reply.holder is not None
        if nobody_acquires and call.sent_at >= self._relay_noticed_at:
            self._relay_at = inf
        if call.kind is not Kind.RELAY:  # the reply to a relay changes no answer to a client
            self._call_replied(call, reply, now)
        self._choose_watch(now)
        self._apply_notices(now)

    def _apply_notices(self, now: float) -> None:
        """Apply the notices that came during a call."""
        if self._noticed:
            self._noticed = False
            self.noticed(now)
            if self._relay_at < inf:
                self._relay_at = max(self._relay_at, self._after_own_call(now))
        if self._step_down_noticed:
            self.step_down_noticed(now)

    def _after_own_call(self, now: float) -> float:
        """When to relay a notice: once this candidate and others with a direct watch had time to acquire the lease."""
        acquires = min(max(now, self._due), now + herd.SPREAD) if self._campaigns(now) else now
        return acquires + herd.relay_delay(self._uniform)

    def _call_replied(self, call: Call, reply: Reply, now: float) -> None:
        self._connected = True
        late_again = self._outcome is Outcome.LATE
        self._outcome = reply.outcome
        if reply.outcome is not Outcome.LATE:
            self._holder = reply.holder or None  # no candidate has an empty id
        self._rest.heard(reply, self.instance_id)
        if reply.outcome in (Outcome.LATE, Outcome.UNCONFIRMED):
            corrected = reply.outcome is Outcome.LATE and not late_again  # the reply corrected the `ServerClock`
            self._due = now if corrected else now + self.timings.retry * self._uniform(0.75, 1.25)
            if reply.outcome is Outcome.UNCONFIRMED and call.kind is Kind.ACQUIRE:
                self._unanswered.may_execute(until=now)
        elif call.kind is Kind.ACQUIRE:
            self._acquire_replied(call, reply, now)
        elif call.kind is Kind.RENEW:
            self._renew_replied(call, reply, now)
        else:
            self._release_replied(call, reply, now)
        self._nothing_heard_yet = self._nothing_heard_yet and reply.outcome in OWNER_UNKNOWN

    def _choose_watch(self, now: float) -> None:
        """Choose between a direct and a relayed watch; a leader needs a direct one."""
        if self._term is not None:
            self.watches_directly, self._relay_at = True, inf
        elif self._watchers is not None and self._direct is not None:
            self.watches_directly = herd.watches_directly(
                self._direct,
                self._watchers,
                now_direct=self.watches_directly,
                campaigns=self._campaigns(now) and not self.follows_only,
                uniform=self._uniform,
            )

    def failed(self, call: Call, now: float, *, may_execute: bool) -> None:
        """Record that `call` got no reply. With `may_execute`, Redis may still execute it until its `give_up_at`."""
        self._in_flight = None
        if call.kind is Kind.RELAY:
            self._apply_notices(now)
            return
        self._noticed = False
        self._record_failure()
        self._due = now + self.timings.retry * self._uniform(0.75, 1.25)
        if may_execute and call.kind is Kind.ACQUIRE:
            self._unanswered.may_execute(until=call.give_up_at)
            self._relay_at = inf  # the lease may be ours

    # Decisions.

    def next_call(self, now: float) -> Call | None:
        """The call to make now, which is then in flight; None if no call is due, or one is in flight already."""
        self.tick(now)
        if self._in_flight is not None or now >= (self._drain_until or inf):
            return None
        call = self._due_call(now) if now >= self._due else None
        if call is None and now >= self._relay_at and self._holds_nothing():
            self._relay_at = inf
            call = self._call(Kind.RELAY, now)
        self._in_flight = call
        return call

    def _due_call(self, now: float) -> Call | None:
        if self._to_release is not None:
            return self._call(Kind.RELEASE, now, self._to_release) if now >= self._grants.until else None
        if self._term is not None:
            return None if self._gives_up(self._term) else self._call(Kind.RENEW, now, self._term)
        if self._campaigns(now):
            looks = self.follows_only or now < self._rest.until
            return self._call(Kind.LOOK if looks else Kind.ACQUIRE, now)
        if self._unanswered.pending and now >= self._unanswered.until:
            return self._call(Kind.LOOK, now)
        return None

    def tick(self, now: float) -> None:
        """End a term whose time is over, and drop a pending release whose key has expired."""
        term = self._term
        if term is not None and now >= term.lead_until and not term.step_down:
            self._end(term, Reason.DEADLINE, now)
            self._unanswered.may_execute(until=now)  # the key may still be ours
        elif term is not None and now >= self._give_up_at(term):
            self._end_and_release(term, Reason.DRAINED if self._drain_until is not None else Reason.CLIENT_SILENT, now)
        if self._to_release is not None and now >= self._to_release.lead_until + self.timings.margin:
            self._left(now)  # its key has expired
            self._due = min(self._due, now)

    def wake_at(self, now: float) -> float:
        """When to ask `next_call` again if nothing happens before."""
        times = [self._demand.until if self._demand.until > now else inf, self._drain_until or inf]
        if self._term is not None:
            times += [self._term.lead_until, self._give_up_at(self._term)]
        if self._in_flight is None:
            if self._holds_nothing():
                times.append(self._relay_at)
            if self._to_release is not None:
                times.append(max(self._due, self._grants.until))
            elif self._term is not None:
                times += [] if self._gives_up(self._term) else [self._due]
            elif self._campaigns(now):
                times.append(self._due)
            elif self._unanswered.pending:
                times.append(max(self._due, self._unanswered.until))
        return min(times)

    def _acquire_replied(self, call: Call, reply: Reply, now: float) -> None:
        if reply.outcome not in (Outcome.ACQUIRED, Outcome.ADOPTED, Outcome.STEPPING_DOWN):
            self._due = now + self._follow(reply)
            if self._campaigns(now) and self._reported_leading is None:
                self._record_transition(now, leads=False, token=None, reason=reply.outcome)
            return
        self._unanswered.answered(call.sent_at)
        assert reply.token is not None  # noqa: S101 - the scripts' contract: a term has a token
        owner = TermOwner() if reply.outcome is Outcome.ACQUIRED else self._owner_of(reply.token)
        term = HeldTerm(reply.token, call.tenure, now, self.timings.believed_until(call.sent_at, reply.ttl), owner)
        if reply.outcome is Outcome.STEPPING_DOWN:
            self._begin_release(term, now, ReleaseReason.STEP_DOWN)
        elif self._campaigns(now) and self._rest.until <= now < term.lead_until:
            self._term = term
            self._due = now if self._replicated else call.sent_at + self.timings.heartbeat
            self._record_transition(now, leads=True, token=term.token, reason=reply.outcome)
        else:
            self._begin_release(term, now, self._unwanted())

    def _owner_of(self, token: int) -> TermOwner:
        """The owner of an adopted term: no other client may get the term's token, even if the owner fell silent."""
        previous = self._previous_term
        if previous is not None and previous.token == token:
            return previous.owner
        return TermOwner(predecessors=self._nothing_heard_yet or (previous is not None and token < previous.token))

    def _renew_replied(self, call: Call, reply: Reply, now: float) -> None:
        term = self._term
        if term is None or term.token != call.token:
            return
        if reply.outcome in (Outcome.RENEWED, Outcome.STEPPING_DOWN):
            until = self.timings.believed_until(call.sent_at, reply.ttl)
            term.lead_until = max(term.lead_until, until)
            renew_at = until - (self.timings.ttl - self.timings.margin) + self.timings.heartbeat
            self._due = max(renew_at, now + self.timings.shortest_renewal)
            term.step_down = reply.outcome is Outcome.STEPPING_DOWN
            self.tick(now)  # after a step-down, a term without a grant ends here, before held requests are answered
        else:
            self._end(term, reply.outcome, now)
            self._due = now if reply.shows_no_term else now + self._follow(reply)

    def _release_replied(self, call: Call, reply: Reply, now: float) -> None:
        if call.kind is Kind.LOOK and self._campaigns(now):
            others = reply.holder not in (None, self.instance_id)
            follows = others or self.follows_only
            self._due = now + self._follow(reply) if follows else self._rested(now)
            if self._reported_leading is None:
                self._record_transition(now, leads=False, token=None, reason=reply.outcome)
            return
        left = self._left(now)
        self._rest.heard(reply, self.instance_id)
        self._unanswered.answered(call.sent_at)
        self._due = self._rested(now)
        if reply.outcome is Outcome.SUPERSEDED and reply.token is not None and self._won_by_lost_call(reply, left):
            until = self.timings.believed_until(call.sent_at, reply.ttl)
            why = left.left_for if left is not None and left.token == reply.token else None
            term = HeldTerm(reply.token, reply.tenure, now, until, self._owner_of(reply.token))
            self._begin_release(term, now, why or self._unwanted())  # the rest after a step-down begins again

    def _won_by_lost_call(self, reply: Reply, left: HeldTerm | None) -> bool:
        """Whether the reply's tenure comes from an unanswered acquire, of this process or of the previous process."""
        late = left is not None and left.token == reply.token and left.began < self._predecessor_acts_until
        return late or reply.tenure.startswith(f"{self._boot}-")

    def _follow(self, reply: Reply) -> float:
        """Seconds until a follower calls again: until the expiry or the end of the guard, at most one heartbeat."""
        longest = self.timings.heartbeat * self._uniform(0.9, 1.0)
        rest = reply.wait if reply.outcome is Outcome.GUARDED else reply.ttl
        if rest is None:
            return longest
        return min(longest, rest + self._uniform(0.001, 0.004) + herd.delay(self._watchers, self._uniform))

    def _rested(self, now: float) -> float:
        """When a resting candidate calls next: at the end of the rest, or after one heartbeat if that is earlier."""
        return max(now, min(self._rest.until, now + self.timings.heartbeat))

    def _call(self, kind: Kind, now: float, term: HeldTerm | None = None) -> Call:
        give_up_at = now + self.timings.call_limit
        token, tenure = (term.token, term.tenure) if term is not None else (None, "")
        if kind is Kind.RENEW and term is not None:
            give_up_at = min(give_up_at, term.lead_until)
        elif kind is Kind.ACQUIRE:
            self._attempts += 1
            tenure = f"{self._boot}-{self._attempts}"
        give_up_at = min(give_up_at, self._drain_until or inf)  # no call outlasts the drain
        why = term.left_for if kind is Kind.RELEASE and term is not None else None
        return Call(kind, now, give_up_at, token, tenure, why or "")

    def _end_and_release(self, term: HeldTerm, reason: Reason, now: float) -> None:
        if reason is Reason.CLIENT_SILENT:  # after a step-down too: nobody would use the next term
            self._demand.forget_answered()
        reason = Reason.STEP_DOWN if term.step_down else reason
        self._end(term, reason, now)
        self._begin_release(term, now, _LEFT_FOR[reason])

    def _unwanted(self) -> ReleaseReason:
        """Why a term that no client has used is released."""
        return ReleaseReason.DEMAND_GONE if self._drain_until is None else ReleaseReason.DRAIN

    def _begin_release(self, term: HeldTerm, now: float, why: ReleaseReason) -> None:
        """Schedule the release of the key. The release is repeated until a reply comes or the key has expired."""
        term.left_for, term.step_down = why, why is ReleaseReason.STEP_DOWN
        self._to_release, self._previous_term, self._due = term, term, now

    def _left(self, now: float) -> HeldTerm | None:
        """Forget the term that was to be released: its key is gone, or not ours any more."""
        term, self._to_release = self._to_release, None
        if term is not None and term.step_down:
            self._rest.stepped_down(term.token, now)
        return term

    def _end(self, term: HeldTerm, reason: str, now: float) -> None:
        self._term, self._previous_term = None, term
        self._record_transition(min(now, term.lead_until), leads=False, token=term.token, reason=reason)
        self._due = min(self._due, now)

    def _record_transition(self, at: float, *, leads: bool, token: int | None, reason: str) -> None:
        self._reported_leading = leads
        self._transitions.append(Transition(leads, token, str(reason), at))
