"""The rules of the state machine under any order of events: two candidates of one lease with a model of its key.

Hypothesis chooses the next event: time passes, a candidate gets its turn or freezes, a call executes, its reply arrives
or is lost, a client asks, waits, resigns or freezes, a sidecar is killed or stopped, an operator changes the key. In
one state machine two named clients ask each sidecar, like the workers of a server.
"""

from dataclasses import dataclass, field
from math import inf

import hypothesis.strategies as st
import pytest
from hypothesis import Phase, Verbosity, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from sidecar.election.lease import Lease
from sidecar.protocol import YIELD_FOR, Call, Kind, Outcome, Reply, State, Timings
from tests.support.lease_model import RedisModel

TIMINGS = Timings()
NAMES = st.sampled_from(["a", "a", "a", "b"])
SPANS = st.sampled_from([0.001, 0.4, 1.1, 2.1, 5.1, 9.0, 15.0, 31.0])


@dataclass
class Task:
    """One candidate, its client, and the calls under way."""

    name: str
    lease: Lease
    in_flight: Call | None = None
    reply: Reply | None = None
    ghosts: list[Call] = field(default_factory=list)  # abandoned calls that have not executed yet
    held: list[tuple[int, float]] = field(default_factory=list)  # tickets and arrivals of held requests
    believes_until: float = -inf  # the client's own deadline
    lead_limit: float = -inf  # end of the term, according to the last successful call
    asked_until: float = -inf
    yields_until: float = -inf
    drains_from: float = inf
    views: dict[int, object] = field(default_factory=dict)
    led: bool = False  # whether the candidate leads, according to the transitions


class Candidates(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.redis = RedisModel(TIMINGS.ttl, TIMINGS.heartbeat)
        self.spread = 0.5
        self.boots = 0
        self.tasks = {name: Task(name, self.fresh_lease(name)) for name in ("a", "b")}

    def fresh_lease(self, name: str) -> Lease:
        def uniform(low: float, high: float) -> float:
            return low + (high - low) * self.spread

        self.boots += 1
        return Lease(name, TIMINGS, boot=f"boot{self.boots}", now=self.now, uniform=uniform)

    # Events.

    @rule(span=SPANS)
    def time_passes(self, span: float) -> None:
        self.now += span
        self.redis.now_is(self.now)

    @rule(name=NAMES, turns=st.integers(1, 4), spread=st.sampled_from([0.0, 0.5, 1.0]))
    def a_candidate_runs_undisturbed(self, name: str, turns: int, spread: float) -> None:
        """Repeatedly, the candidate sleeps until `wake_at` and its call succeeds. No client asks."""
        self.spread = spread
        for _ in range(turns):
            wake_at = self.tasks[name].lease.wake_at(self.now)
            if self.now < wake_at < self.now + 60:
                self.time_passes(wake_at - self.now)
            self.a_call_succeeds_at_once(name)

    @rule(name=NAMES, span=SPANS)
    def a_reply_is_late(self, name: str, span: float) -> None:
        self.a_candidate_gets_its_turn(name)
        self.a_call_executes(name)
        self.time_passes(span)
        self.a_reply_arrives(name)

    @precondition(lambda self: any(not task.in_flight for task in self.tasks.values()))
    @rule(name=NAMES)
    def a_candidate_gets_its_turn(self, name: str) -> None:
        task = self.tasks[name]
        call = task.lease.next_call(self.now)
        if call is None:
            return
        assert task.in_flight is None, "one call at a time"
        task.in_flight = call
        assert call.sent_at == self.now, "each attempt starts its own term"
        assert self.now < call.give_up_at <= self.now + TIMINGS.call_limit
        if call.kind is Kind.RELEASE:
            assert task.believes_until <= self.now, "the lease was released while its client may act"
        if call.kind is Kind.ACQUIRE:
            assert self.now < task.drains_from, "a draining candidate campaigned"
            assert self.now >= task.yields_until, "a candidate did not yield after its resign"
            assert task.held or self.now < task.asked_until, "a candidate campaigned without demand"

    @precondition(lambda self: any(task.in_flight and not task.reply for task in self.tasks.values()))
    @rule(name=NAMES)
    def a_call_executes(self, name: str) -> None:
        task = self.tasks[name]
        if task.in_flight is not None and task.reply is None:
            task.reply = self.redis.execute(task.in_flight, name, self.now)

    @precondition(lambda self: any(task.reply for task in self.tasks.values()))
    @rule(name=NAMES)
    def a_reply_arrives(self, name: str) -> None:
        task = self.tasks[name]
        call, reply = task.in_flight, task.reply
        if call is None or reply is None:
            return
        task.in_flight = task.reply = None
        led = task.lease.leads(self.now)
        if reply.outcome in (Outcome.ACQUIRED, Outcome.ADOPTED, Outcome.RENEWED):
            task.lead_limit = max(task.lead_limit, call.sent_at + TIMINGS.ttl - TIMINGS.margin)
        if reply.holder not in (None, name):
            task.yields_until = -inf
        task.lease.replied(call, reply, self.now)
        if call.kind is not Kind.ACQUIRE and not led:
            assert not task.lease.leads(self.now), f"the reply to a {call.kind} began a term"

    @rule(name=NAMES)
    def a_request_and_its_call_succeed(self, name: str) -> None:
        self.a_client_asks(name, 0.0)
        self.a_call_succeeds_at_once(name)
        self.a_client_asks(name, 0.0)

    @rule(name=NAMES)
    def a_call_succeeds_at_once(self, name: str) -> None:
        self.a_candidate_gets_its_turn(name)
        self.a_call_executes(name)
        self.a_reply_arrives(name)

    @precondition(lambda self: any(task.in_flight for task in self.tasks.values()))
    @rule(name=NAMES)
    def a_call_times_out(self, name: str) -> None:
        task = self.tasks[name]
        if task.in_flight is None:
            return
        if task.reply is None:
            task.ghosts.append(task.in_flight)
        task.lease.failed(task.in_flight, self.now, may_execute=True)
        task.in_flight = task.reply = None

    @precondition(lambda self: any(task.in_flight and not task.reply for task in self.tasks.values()))
    @rule(name=NAMES)
    def a_call_is_refused(self, name: str) -> None:
        task = self.tasks[name]
        if task.in_flight is None or task.reply is not None:
            return
        task.lease.failed(task.in_flight, self.now, may_execute=False)
        task.in_flight = None

    @precondition(lambda self: any(task.ghosts for task in self.tasks.values()))
    @rule(name=NAMES)
    def an_abandoned_call_executes(self, name: str) -> None:
        task = self.tasks[name]
        if task.ghosts:
            self.redis.execute(task.ghosts.pop(0), name, self.now)

    @rule(name=NAMES, delay=st.sampled_from([0.0, 0.0, 0.5, 4.0]))
    def a_client_asks(self, name: str, delay: float) -> None:
        """The request arrived `delay` seconds ago: the sidecar was slow, or it held the request."""
        task = self.tasks[name]
        self.ask(task)
        self.answer(task, self.now - delay)

    def ask(self, task: Task) -> None:
        task.lease.asked(self.now)
        task.asked_until = self.now + TIMINGS.demand

    def answer(self, task: Task, arrived: float) -> None:
        grant = task.lease.grant(arrived, self.now)
        if grant is not None:
            assert task.lease.leads(self.now)
            assert arrived + grant <= task.lead_limit + 1e-6, "a grant ends after the term"
            assert arrived + grant <= self.now + TIMINGS.grant_ttl + 1e-6
            task.believes_until = max(task.believes_until, arrived + grant)

    @rule(name=NAMES)
    def a_request_is_held(self, name: str) -> None:
        task = self.tasks[name]
        self.ask(task)
        task.held.append((task.lease.hold(), self.now))

    @precondition(lambda self: any(task.held for task in self.tasks.values()))
    @rule(name=NAMES, answered=st.booleans())
    def a_held_request_ends(self, name: str, answered: bool) -> None:
        task = self.tasks[name]
        if task.held:
            ticket, arrived = task.held.pop(0)
            task.lease.unhold(ticket, self.now, answered=answered)
            if answered:
                task.asked_until = self.now + TIMINGS.demand
                self.answer(task, max(arrived, self.now - TIMINGS.grant_ttl / 2))

    @rule(name=NAMES)
    def a_client_resigns(self, name: str) -> None:
        task = self.tasks[name]
        task.believes_until = task.asked_until = -inf
        acquiring = task.in_flight is not None and task.in_flight.kind is Kind.ACQUIRE
        if task.lease.leads(self.now) or acquiring:
            task.yields_until = self.now + YIELD_FOR
        task.lease.resigned(self.now)
        stale, task.held = task.held, []
        assert not task.lease.leads(self.now)
        assert task.lease.view(self.now).state in (State.WAITING, State.DRAINING), "a held request counted as demand"
        for ticket, _ in stale:
            task.lease.unhold(ticket, self.now, answered=True)
        assert task.lease.view(self.now).state in (State.WAITING, State.DRAINING), (
            "an answered request counted as demand"
        )

    @rule(name=NAMES)
    def a_notice_arrives(self, name: str) -> None:
        self.tasks[name].lease.noticed(self.now)

    @rule(name=NAMES)
    def a_sidecar_receives_sigterm(self, name: str) -> None:
        task = self.tasks[name]
        task.drains_from = min(task.drains_from, self.now)
        task.lease.drain(self.now)

    @rule(name=NAMES, asks=st.booleans())
    def a_sidecar_is_killed_and_restarted(self, name: str, asks: bool) -> None:
        """The client still acts on the last answer. Sent calls may still execute within the call limit."""
        task = self.tasks[name]
        if task.in_flight is not None and task.reply is None:
            task.ghosts.append(task.in_flight)
        self.tasks[name] = Task(
            name, self.fresh_lease(name), ghosts=task.ghosts, believes_until=task.believes_until, views={}
        )
        if asks:
            self.a_request_and_its_call_succeed(name)

    # Rules.

    @invariant()
    def a_term_ends_by_the_last_successful_call(self) -> None:
        for task in self.tasks.values():
            if task.lease.leads(self.now):
                assert self.now < task.lead_limit
                assert self.now + task.lease.remaining(self.now) <= task.lead_limit + 1e-6
                assert self.now < task.drains_from

    @invariant()
    def equal_versions_mean_equal_views(self) -> None:
        for task in self.tasks.values():
            view = task.lease.view(self.now)
            assert task.views.setdefault(view.version, view) == view
            assert view.version == max(task.views), "a version was repeated"
            assert (view.token is not None) == task.lease.leads(self.now)

    @invariant()
    def terms_do_not_overlap(self) -> None:
        for task in self.tasks.values():
            for transition in task.lease.transitions():
                assert not (transition.leads and task.led), "a term began before the previous term had ended"
                task.led = transition.leads

    @invariant()
    def a_leader_wakes_before_its_term_ends(self) -> None:
        """`wake_at` is not later than the end of the term."""
        for task in self.tasks.values():
            if task.in_flight is None and task.lease.leads(self.now):
                assert task.lease.wake_at(self.now) <= task.lead_limit

    def teardown(self) -> None:
        """An undisturbed drain ends within its bound."""
        for task in self.tasks.values():
            task.lease.drain(self.now)
            end = self.now + TIMINGS.grant_ttl + 3 * TIMINGS.call_limit
            assert task.lease.drained(end)


class UndisturbedCandidates(Candidates):
    """Only candidates change the key, so the key always matches the leader."""

    @invariant()
    def a_leader_holds_the_key_for_at_least_the_margin(self) -> None:
        for task in self.tasks.values():
            if task.lease.leads(self.now):
                assert self.redis.holder == task.name
                assert self.redis.expires_at - self.now >= TIMINGS.margin - 1e-6

    @invariant()
    def two_clients_never_lead_at_once(self) -> None:
        assert sum(task.believes_until > self.now for task in self.tasks.values()) <= 1

    @invariant()
    def the_candidate_of_a_leading_client_holds_the_key(self) -> None:
        for task in self.tasks.values():
            if task.believes_until > self.now:
                assert self.redis.holder == task.name

    @precondition(lambda self: self.redis.holder is None)
    @rule(name=NAMES)
    def a_vacant_lease_is_led_soon(self, name: str) -> None:
        """A vacant lease with one live client is led within the longest pause that the rules allow."""
        task = self.tasks[name]
        if task.drains_from < inf or task.in_flight is not None:
            return
        task.lease.noticed(self.now)  # stands for a notice of the other candidate's release, or for the timer
        deadline = self.now + YIELD_FOR + TIMINGS.call_limit + 1.25 * TIMINGS.retry
        while not task.lease.leads(self.now):
            assert self.now <= deadline, "nobody leads"
            self.ask(task)
            self.a_call_succeeds_at_once(name)
            wake_at = task.lease.wake_at(self.now)
            if not task.lease.leads(self.now):
                self.time_passes(min(1.0, max(0.001, wake_at - self.now)))
            if self.redis.holder not in (None, name):
                return


class CandidatesWithOperator(Candidates):
    """An operator deletes, disables and changes the key: the candidate's own rules still hold."""

    @rule()
    def an_operator_deletes_the_key(self) -> None:
        self.redis.holder, self.redis.expires_at = None, inf

    @rule(word=st.sampled_from(["DISABLED", "older-candidate"]), ttl=st.sampled_from([3.0, 30.0, 3600.0, inf]))
    def an_operator_sets_the_key(self, word: str, ttl: float) -> None:
        self.redis.holder, self.redis.expires_at = word, self.now + ttl

    @rule(ttl=st.sampled_from([1.0, 3600.0, inf]))
    def an_operator_changes_the_ttl(self, ttl: float) -> None:
        if self.redis.holder is not None:
            self.redis.expires_at = self.now + ttl


@dataclass
class Worker:
    """One of two clients of a task. The client acts on an answer until its deadline, even if the sidecar fails."""

    candidate: str
    name: str
    token: int | None = None  # token of the term under which the client acts
    until: float = -inf
    frozen: bool = False


class CandidatesOfWorkers(RuleBasedStateMachine):
    """Each candidate has two clients, and its sidecar may restart while the key lives."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.redis = RedisModel(TIMINGS.ttl, TIMINGS.heartbeat)
        self.boots = 0
        self.leases = {name: self.fresh_lease(name) for name in ("a", "b")}
        self.workers = [Worker(candidate, f"{candidate}{number}") for candidate in "ab" for number in (1, 2)]
        self.granted: dict[int, str] = {}
        """The client to which each token was granted."""

    def fresh_lease(self, name: str) -> Lease:
        self.boots += 1
        return Lease(name, TIMINGS, boot=f"boot{self.boots}", now=self.now, uniform=lambda low, high: low)

    @rule(span=SPANS)
    def time_passes(self, span: float) -> None:
        self.now += span

    @rule(name=NAMES)
    def a_candidate_gets_its_turn(self, name: str) -> None:
        lease = self.leases[name]
        call = lease.next_call(self.now)
        if call is not None:
            if call.kind is Kind.RELEASE:
                assert not self.believers(name), "the lease was released while its client may act"
            lease.replied(call, self.redis.execute(call, name, self.now), self.now)

    @rule(number=st.integers(0, 3), delay=st.sampled_from([0.0, 0.0, 0.0, 1.0, 4.0]), says=st.booleans())
    def a_worker_asks(self, number: int, delay: float, says: bool) -> None:
        """The request arrived `delay` seconds ago. If `says`, the worker presents the token of its term."""
        worker = self.workers[number]
        if worker.frozen:
            return
        if worker.until <= self.now:
            worker.token = None
        lease = self.leases[worker.candidate]
        lease.asked(self.now)
        self.a_candidate_gets_its_turn(worker.candidate)
        grant = lease.grant(self.now - delay, self.now, worker.name, worker.token if says else None)
        token = lease.view(self.now).token
        if grant is not None and token is not None:
            whose = self.granted.setdefault(token, worker.name)
            assert whose == worker.name, f"token {token} was granted to {whose}: both would pass the fence"
        if grant is not None and worker.token in (None, token):
            worker.token, worker.until = token, max(worker.until, self.now - delay + grant)

    @rule(name=NAMES, executed=st.booleans())
    def a_reply_is_lost(self, name: str, executed: bool) -> None:
        lease = self.leases[name]
        call = lease.next_call(self.now)
        if call is not None:
            if executed and call.kind is not Kind.RELEASE:
                self.redis.execute(call, name, self.now)
            lease.failed(call, self.now, may_execute=True)

    @rule(name=NAMES)
    def redis_is_unreachable_until_the_term_ends(self, name: str) -> None:
        """A client with a grant still asks unless it is frozen.

        Its last grant then ends with the term, one margin before the key expires.
        """
        lease = self.leases[name]
        while lease.leads(self.now):
            self.now += 1.0
            for worker in self.believers(name):
                if not worker.frozen:
                    lease.asked(self.now)
                    grant = lease.grant(self.now, self.now, worker.name, worker.token)
                    worker.until = max(worker.until, self.now + (grant or 0.0))
            call = lease.next_call(self.now)
            if call is not None:
                lease.failed(call, self.now, may_execute=False)

    @rule(number=st.integers(0, 3))
    def a_worker_resigns(self, number: int) -> None:
        worker = self.workers[number]
        if not worker.frozen:
            worker.token, worker.until = None, -inf
            self.leases[worker.candidate].resigned(self.now, client=worker.name)

    @rule(number=st.integers(0, 3))
    def a_worker_freezes_or_thaws(self, number: int) -> None:
        """A frozen client acts until its deadline and sends no request."""
        self.workers[number].frozen = not self.workers[number].frozen

    @rule(name=NAMES)
    def a_sidecar_restarts(self, name: str) -> None:
        self.leases[name] = self.fresh_lease(name)

    def believers(self, candidate: str = "ab") -> list[Worker]:
        return [worker for worker in self.workers if worker.until > self.now and worker.candidate in candidate]

    @invariant()
    def two_clients_never_lead_at_once(self) -> None:
        assert len(self.believers()) <= 1, self.believers()


# Derandomized, so that a failure can be repeated. For a wider search, raise max_examples and stateful_step_count.
_SEARCH = settings(max_examples=120, stateful_step_count=50, deadline=None, derandomize=True)
TestUndisturbedCandidates = UndisturbedCandidates.TestCase
TestUndisturbedCandidates.settings = _SEARCH
TestCandidatesWithOperator = CandidatesWithOperator.TestCase
TestCandidatesWithOperator.settings = _SEARCH
TestCandidatesOfWorkers = CandidatesOfWorkers.TestCase
TestCandidatesOfWorkers.settings = _SEARCH


def test_the_search_finds_two_workers_that_lead_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grant = Lease.grant
    monkeypatch.setattr(Lease, "grant", lambda lease, arrived, now, *_: grant(lease, arrived, now))
    with pytest.raises(AssertionError, match=r"both would pass the fence|believers"):
        run_state_machine_as_test(
            CandidatesOfWorkers,
            settings=settings(_SEARCH, max_examples=5_000, phases=[Phase.generate], verbosity=Verbosity.quiet),
        )
