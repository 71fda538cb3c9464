"""Seeded bugs for the simulation: each breaks one rule of the protocol, and the simulation must find every bug.

A bug replaces one to three functions of the production code, of the model of its scripts, or of the simulator. A bug
that survives fails the run: an oracle or a fault is missing, or the rule is not needed.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import inf
from types import ModuleType
from typing import Any
from unittest.mock import patch

from sidecar.client.term import Grant
from sidecar.election import herd
from sidecar.election.claims import Demand, HeldTerm
from sidecar.election.lease import Lease
from sidecar.election.rest import Rest
from sidecar.protocol import YIELD_FOR, Call, Kind, Outcome, Reply, ServerClock, Timings
from tests.simulation.candidate import Sidecar
from tests.simulation.client import Client, HeardAnswer
from tests.simulation.command_line import workers
from tests.simulation.faults import Faults
from tests.simulation.redis_model import Answer, RedisModel
from tests.simulation.run import Choice, run_world
from tests.simulation.server import Server
from tests.simulation.store import Store

TTL, PACE = 30.0, 1.5
"""The defaults of a search for a bug: the ttl in seconds, and the mean time between two faults in ttls."""
MOST_HOURS = 3_000.0
"""The number of simulated hours after which a bug counts as surviving."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug: the replaced functions and their substitutes. The search takes every second world from `mix`."""

    name: str
    replaced: tuple[tuple[type | ModuleType, str, Any], ...]
    mix: str | None = None
    pace: float = PACE

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Apply the bug until the end of the block."""
        with ExitStack() as stack:
            for owner, attribute, substitute in self.replaced:
                stack.enter_context(patch.object(owner, attribute, substitute))
            yield


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a search: the broken law, and the hours and worlds of the search; `law` is None for a survivor."""

    name: str
    law: str | None
    mix: str
    hours: float
    worlds: int
    seconds: float
    world: int
    """The number of the world in its mix."""


MUTANTS: list[Mutant] = []

_LEASE_REPLIED, _LEASE_FAILED, _LEASE_CALL, _LEASE_INIT = Lease.replied, Lease.failed, Lease._call, Lease.__init__
_HERD_DELAY = herd.delay
_LEASE_RESIGNED, _LEASE_GIVE_UP_AT, _LEASE_ACQUIRED = Lease.resigned, Lease._give_up_at, Lease._acquire_replied
_LEASE_DRAIN, _LEASE_WAKE_AT, _LEASE_RENEWED = Lease.drain, Lease.wake_at, Lease._renew_replied
_GUARD_WAIT, _MODEL_RENEW, _MODEL_ACQUIRE = RedisModel._guard_wait, RedisModel.renew, RedisModel.acquire
_CLIENT_HEAR, _CLIENT_STOP, _CLIENT_FINISHED = Client._hear, Client.stop, Client._finished
_REPLIED = Sidecar._replied

_LEASE_CALL_REPLIED = Lease._call_replied
_LEASE_GRANT, _LEASE_ANSWER_VALID_FOR = Lease.grant, Lease.answer_valid_for


def mutant(
    name: str, owner: type | ModuleType, attribute: str, *, mix: str | None = None, pace: float = PACE
) -> Callable[[Any], Any]:
    """Register the decorated function as a bug that replaces `owner.attribute`."""

    def register(substitute: Any) -> Any:
        MUTANTS.append(Mutant(name, ((owner, attribute, substitute),), mix, pace))
        return substitute

    return register


# Time.


@mutant("the deadline of a term counts from the reply", Lease, "replied")
def _(lease: Lease, call: Call, reply: Reply, now: float) -> None:
    _LEASE_REPLIED(lease, call._replace(sent_at=now), reply, now)


def _no_margin(timings: Timings) -> float:
    return 0.0


mutant("a sidecar believes for the whole ttl that it leads", Timings, "margin")(property(_no_margin))


@mutant("a late reply counts as the reply of the newest attempt", Sidecar, "_replied", mix="network")
def _(sidecar: Sidecar, arg: tuple[int, Call, Answer, bool, tuple[int, int] | None]) -> None:
    _, call, answer, confirmed, watches = arg
    if sidecar._call is not None and sidecar._call.kind is call.kind:
        _REPLIED(sidecar, (sidecar._attempt, sidecar._call, answer, confirmed, watches))


@mutant("all retries share the deadline of the first attempt", Lease, "_call", mix="network")
def _(lease: Lease, kind: Kind, now: float, term: HeldTerm | None = None) -> Call:
    call = _LEASE_CALL(lease, kind, now, term)
    if lease._connected:
        lease.__dict__["first_give_up_at"] = call.give_up_at
    return call._replace(give_up_at=lease.__dict__.get("first_give_up_at", call.give_up_at))


@mutant("scripts have no deadline", ServerClock, "at", mix="quiet")
def _(clock: ServerClock, moment: float, now: float) -> int:
    return 2**62


@mutant("the clock stands still while the machine is suspended", Faults, "_slept", mix="processes")
def _(faults: Faults, sidecar: Sidecar, seconds: float) -> None:
    sidecar.clock -= seconds * sidecar.rate


# Grants.


def _flag(lease: Lease, now: float) -> bool:
    return lease._term is not None and lease._drain_until is None


def _unclipped(lease: Lease, arrived: float, now: float, client: str = "", token: int | None = None) -> float | None:
    taken = lease._grants.seconds_held_by_other_client(now, client, knows_term=lease._admits(token))
    if lease._term is None or not lease.leads(now) or taken:
        return None
    lease._term.granted = True
    until = max(arrived, lease._term.began) + lease.timings.grant_ttl
    lease._grants.give(client, until)
    return until - arrived


MUTANTS.append(
    Mutant("leading is a stored flag", ((Lease, "leads", _flag), (Lease, "grant", _unclipped)), mix="processes")
)
mutant("a grant may outlive the lease", Lease, "grant", mix="network")(_unclipped)


@mutant("an error counts as a success", Lease, "failed", mix="network")
def _(lease: Lease, call: Call, now: float, *, may_execute: bool) -> None:
    if call.kind is Kind.RENEW:
        reply = Reply(Outcome.RENEWED, lease.instance_id, call.token, lease.timings.ttl, 0.0, call.tenure)
        _LEASE_REPLIED(lease, call, reply, now)
    else:
        _LEASE_FAILED(lease, call, now, may_execute=may_execute)


@mutant("a leader ignores another party's value in its key", Lease, "_renew_replied", mix="operator")
def _(lease: Lease, call: Call, reply: Reply, now: float) -> None:
    if reply.outcome is Outcome.RENEWED:
        _LEASE_RENEWED(lease, call, reply, now)
    else:
        lease._due = now + lease.timings.retry


# The election loop.


@mutant("a draining sidecar with a late acquire loops without a pause", Lease, "wake_at", mix="late calls")
def _(lease: Lease, now: float) -> float:
    wake_at = _LEASE_WAKE_AT(lease, now)
    if lease._in_flight or lease._to_release or not lease._drain_until or not lease._unanswered.pending:
        return wake_at
    return min(wake_at, max(lease._due, lease._unanswered.until))


@mutant("a failed call is repeated without a pause", Lease, "failed", mix="redis")
def _(lease: Lease, call: Call, now: float, *, may_execute: bool) -> None:
    _LEASE_FAILED(lease, call, now, may_execute=may_execute)
    lease._due = now


@mutant("a late call stays in flight", Lease, "replied", mix="redis")
def _(lease: Lease, call: Call, reply: Reply, now: float) -> None:
    _LEASE_REPLIED(lease, call, reply, now)
    if reply.outcome is Outcome.LATE:
        lease._in_flight = call


# Demand and hand-over.


@mutant("demand is ignored", Demand, "wanted")
def _(demand: Demand, now: float) -> bool:
    return True


@mutant("a task with CAMPAIGN=false campaigns", Lease, "__init__")
def _(lease: Lease, *arguments: Any, **options: Any) -> None:
    _LEASE_INIT(lease, *arguments, **{**options, "campaign": True})


@mutant("the lease forgets a notice during a call", Lease, "noticed", mix="quiet")
def _(lease: Lease, now: float) -> None:
    if lease._in_flight is None:
        lease._due = min(lease._due, now)


@mutant("a candidate of a large fleet delays its call by one second", herd, "delay", mix="quiet")
def _(candidates: int | None, uniform: Callable[[float, float], float]) -> float:
    return 1.0 if _HERD_DELAY(candidates, uniform) else 0.0


@mutant("a candidate with a direct watch does not relay", Lease, "relay_noticed", mix="quiet")
def _(lease: Lease, now: float) -> None:
    lease.noticed(now)


def _relayed_watches_are_never_notified(model: RedisModel) -> bool:
    return model.watches is None or model.watches[1] == 0


mutant("a release in a large fleet never notifies relayed watches", RedisModel, "notifies_all", mix="quiet")(
    property(_relayed_watches_are_never_notified)
)


@mutant("too many candidates leave the direct watches", herd, "watches_directly", mix="quiet")
def _(direct: int, watchers: int, *, now_direct: bool, campaigns: bool, uniform: herd.Uniform) -> bool:
    return watchers <= herd.SMALL_FLEET or (campaigns and not now_direct and direct == 0)


def _acquired_for_nobody(lease: Lease, call: Call, reply: Reply, now: float) -> None:
    lease._rest.until = -inf
    lease.__dict__["_campaigns"] = lambda now: True
    try:
        _LEASE_ACQUIRED(lease, call, reply, now)
    finally:
        del lease.__dict__["_campaigns"]


def _never_left(lease: Lease, term: HeldTerm) -> float:
    return _LEASE_GIVE_UP_AT(lease, term) if term.granted or lease._drain_until is not None else inf


MUTANTS.append(
    Mutant(
        "a candidate leads after an acquire that completes after the end of demand",
        ((Lease, "_acquire_replied", _acquired_for_nobody), (Lease, "_give_up_at", _never_left)),
        mix="quiet",
    )
)


@mutant("a request from before the resign counts as demand", Lease, "resigned", mix="quiet")
def _(lease: Lease, now: float, token: int | None = None, client: str = "") -> bool:
    holds = lease._demand.holds
    resigned = _LEASE_RESIGNED(lease, now, token, client)
    lease._demand.holds = holds
    return resigned


@mutant("a candidate does not yield after a resign", Lease, "resigned", mix="quiet")
def _(lease: Lease, now: float, token: int | None = None, client: str = "") -> bool:
    resigned = _LEASE_RESIGNED(lease, now, token, client)
    lease._rest.until = -inf
    return resigned


@mutant("a release whose reply was lost is forgotten", Lease, "failed", mix="quiet")
def _(lease: Lease, call: Call, now: float, *, may_execute: bool) -> None:
    _LEASE_FAILED(lease, call, now, may_execute=may_execute)
    if call.kind is Kind.RELEASE:
        lease._to_release = None


def _not_brought(lease: Lease, reply: Reply, left: HeldTerm | None) -> bool:
    return False


mutant("a term that a late acquire won is not given up", Lease, "_won_by_lost_call", mix="quiet")(_not_brought)


@mutant("a silent client's lease is kept", Lease, "_give_up_at", mix="processes")
def _(lease: Lease, term: HeldTerm) -> float:
    return inf if lease._drain_until is None else _LEASE_GIVE_UP_AT(lease, term)


@mutant("a draining sidecar does not wait for its client", Lease, "drain", mix="processes")
def _(lease: Lease, now: float) -> None:
    _LEASE_DRAIN(lease, now)
    lease._grants.until = -inf


@mutant("any reply makes a predecessor's term free for any client", Lease, "_call_replied", mix="late calls")
def _(lease: Lease, call: Call, reply: Reply, now: float) -> None:
    _LEASE_CALL_REPLIED(lease, call, reply, now)
    lease._nothing_heard_yet = lease._nothing_heard_yet and reply.outcome in (Outcome.LATE, Outcome.UNCONFIRMED)


@mutant("a restarted sidecar ignores the grants of its predecessor", Lease, "__init__", mix="processes")
def _(lease: Lease, *args: Any, **options: Any) -> None:
    _LEASE_INIT(lease, *args, **options)
    lease._grants.until = -inf


@mutant("a follower waits for its heartbeat instead of the expiry", Lease, "_follow", mix="quiet")
def _(lease: Lease, reply: Reply) -> float:
    return lease.timings.heartbeat


# An operator's step-down.


@mutant("a leader that is asked to step down continues to lead", Lease, "leads", mix="operator")
def _(lease: Lease, now: float) -> bool:
    return lease._term is not None and lease._drain_until is None and now < lease._term.lead_until


@mutant("no script reports a step-down to the holder", RedisModel, "_stepping_down", mix="operator")
def _(model: RedisModel) -> bool:
    return False


@mutant("a leader that steps down does not wait for its client", Lease, "_renew_replied", mix="operator")
def _(lease: Lease, call: Call, reply: Reply, now: float) -> None:
    _LEASE_RENEWED(lease, call, reply, now)
    if reply.outcome is Outcome.STEPPING_DOWN:
        lease._grants.until = -inf


@mutant("a candidate that has stepped down does not rest", Rest, "stepped_down", mix="operator")
def _(rest: Rest, token: int, now: float) -> None:
    pass


@mutant("the rest after a step-down is as short as after a resign", Rest, "stepped_down", mix="quiet")
def _(rest: Rest, token: int, now: float) -> None:
    rest.until, rest._token = max(rest.until, now + YIELD_FOR), token


def _any_step_down(model: RedisModel) -> bool:
    return model.fence.step_down is not None


def _acquire_of_an_older_version(model: RedisModel, *args: Any) -> Answer:
    acquire: Any = _MODEL_ACQUIRE
    step_down = model.fence.step_down
    answer: Answer = acquire(model, *args)
    model.fence.step_down = step_down
    return answer


MUTANTS.append(
    Mutant(
        "a step-down is not compared with the term's token",
        ((RedisModel, "_stepping_down", _any_step_down), (RedisModel, "acquire", _acquire_of_an_older_version)),
        mix="operator",
    )
)


# The client.


@mutant("the client counts a grant from the answer", Client, "_hear", mix="processes")
def _(client: Client, heard: HeardAnswer) -> None:
    _CLIENT_HEAR(client, (heard[0], client.sidecar.now(), *heard[2:]))


@mutant("is_leader does not look at the clock", Grant, "remaining", mix="processes")
def _(grant: Grant) -> float:
    return 0.0 if grant._ended else 1.0


@mutant("the client resigns before its work has ended", Client, "stop", mix="quiet")
def _(client: Client, *, over: bool = True) -> None:
    if not client._stopping:
        client.sidecar.resigned((None, client.name, None))
    _CLIENT_STOP(client, over=over)


@mutant("the client asks before its resign is answered", Client, "_finished", mix="processes")
def _(client: Client, life: int) -> None:
    _CLIENT_FINISHED(client, life)
    client._resigning = False


def _grant_to_any(lease: Lease, arrived: float, now: float, *_: object) -> float | None:
    return _LEASE_GRANT(lease, arrived, now)


def _answer_valid_for_any(lease: Lease, now: float, *_: object) -> float:
    return _LEASE_ANSWER_VALID_FOR(lease, now, "")


def _resigned_by_any(lease: Lease, now: float, token: int | None = None, *_: object) -> bool:
    return _LEASE_RESIGNED(lease, now, token)


MUTANTS.append(
    Mutant(
        "the clients of a task are not distinguished",
        (
            (Lease, "grant", _grant_to_any),
            (Lease, "answer_valid_for", _answer_valid_for_any),
            (Lease, "resigned", _resigned_by_any),
        ),
        mix="late calls",
    )
)


# The scripts.


@mutant("a renewal does not compare the holder", RedisModel, "renew")
def _(
    model: RedisModel,
    instance: str,
    ttl: int,
    deadline: int,
    guarding: bool,
    token: int | None,
    tenure: str,
    floor: int,
    replicated: bool,
) -> Answer:
    problem = model._read(deadline, guarding)
    if problem is not None or model.value is None:
        return _MODEL_RENEW(model, instance, ttl, deadline, guarding, token, tenure, floor, replicated)
    model._expire_in(ttl)
    return model._answer(Outcome.RENEWED)


def _by_id(model: RedisModel, instance: str, token: int | None, tenure: str) -> bool:
    return model._ours(instance)


mutant("renew and release do not compare the term", RedisModel, "_our_term", mix="late calls")(_by_id)


@mutant("renew and release do not compare the tenure", RedisModel, "_our_term", mix="late calls")
def _(model: RedisModel, instance: str, token: int | None, tenure: str) -> bool:
    return model._ours(instance) and model.fence.token == token


@mutant("acquire takes a lease that another candidate holds", RedisModel, "acquire")
def _(model: RedisModel, instance: str, ttl: int, deadline: int, guarding: bool, *term: Any) -> Answer:
    if model.value is not None and model.value != instance and model._left() < ttl / 2:
        model.value = None
    return _MODEL_ACQUIRE(model, instance, ttl, deadline, guarding, *term)


@mutant("DISABLED counts as a free key", RedisModel, "acquire", mix="operator")
def _(model: RedisModel, instance: str, ttl: int, deadline: int, guarding: bool, *term: Any) -> Answer:
    if model.value == "DISABLED":
        model.value = None
    return _MODEL_ACQUIRE(model, instance, ttl, deadline, guarding, *term)


@mutant("a candidate does not adopt the term of its own id", RedisModel, "acquire", mix="processes")
def _(model: RedisModel, instance: str, ttl: int, deadline: int, guarding: bool, *term: Any) -> Answer:
    problem = model._read(deadline, guarding)
    if problem is None and model.value == instance:
        return model._answer(Outcome.HELD)
    return _MODEL_ACQUIRE(model, instance, ttl, deadline, guarding, *term)


@mutant("tokens are counted by INCR", RedisModel, "_next_token", mix="redis")
def _(model: RedisModel) -> int:
    last = model.fence.token
    return last + 1 if isinstance(last, int) else 1


@mutant("a token that is far ahead is incremented", RedisModel, "_is_ahead", mix="operator")
def _(model: RedisModel, token: int | None) -> bool:
    return False


# The failover guard and MIN_REPLICAS.


@mutant("there is no failover guard", RedisModel, "_guard_wait", mix="redis")
def _(model: RedisModel, ttl: int, guarding: bool) -> int:
    return 0


@mutant("the guard lets the holder of the key acquire", RedisModel, "_guard_wait", mix="redis")
def _(model: RedisModel, ttl: int, guarding: bool) -> int:
    wait = _GUARD_WAIT(model, ttl, guarding)
    return 0 if model.value is not None and model.fence.holder == model.value else wait


@mutant("the guard identifies a server by its run id alone", RedisModel, "_guard_wait", mix="redis")
def _(model: RedisModel, ttl: int, guarding: bool) -> int:
    return 0 if model.fence.run_id == model.run_id else _GUARD_WAIT(model, ttl, guarding)


@mutant("a promoted server without a fence is not guarded", RedisModel, "_guard_wait", mix="redis")
def _(model: RedisModel, ttl: int, guarding: bool) -> int:
    fence = model.fence
    if fence.run_id is None and fence.changed is None:
        return max(0, ttl - (model.now // 1_000_000 - model.started - 1) * 1000)
    return _GUARD_WAIT(model, ttl, guarding)


@mutant("the wait of the guard restarts at each call", RedisModel, "_guard_wait", mix="redis")
def _(model: RedisModel, ttl: int, guarding: bool) -> int:
    model.fence.changed_at = None
    return _GUARD_WAIT(model, ttl, guarding)


@mutant("a server that has just started without data is not guarded", RedisModel, "_guard_wait", mix="redis")
def _(model: RedisModel, ttl: int, guarding: bool) -> int:
    fence = model.fence
    young = guarding and not (fence.run_id or fence.changed or model.promoted)
    return 0 if young else _GUARD_WAIT(model, ttl, guarding)


@mutant("the guard does not wait for a late demotion", RedisModel, "_guard_wait", mix="sentinels")
def _(model: RedisModel, ttl: int, guarding: bool) -> int:
    return max(0, _GUARD_WAIT(model, ttl, guarding) - model.late)


@mutant("the sentinels are not asked before a lease is taken", Sidecar, "assured", mix="sentinels")
def _(sidecar: Sidecar, call: Call, server: Server) -> bool:
    return True


@mutant("the guard waits for half a ttl", RedisModel, "_guard_wait", mix="redis")
def _(model: RedisModel, ttl: int, guarding: bool) -> int:
    return max(0, _GUARD_WAIT(model, ttl, guarding) - ttl // 2)


@mutant("MIN_REPLICAS confirms everything", Server, "confirms", mix="replicas")
def _(server: Server, wanted: int, offset: int) -> bool:
    return True


@mutant("a renewal that wrote nothing is confirmed", RedisModel, "renew", mix="replicas", pace=0.75)
def _(*args: Any) -> Any:
    renew: Any = _MODEL_RENEW
    return renew(*args[:-1], False)


# The fence in the database.


def _nothing(store: Store) -> None:
    pass


MUTANTS.append(
    Mutant(
        "the fence is read by a plain SELECT",
        ((Store, "share", _nothing), (Store, "unshare", _nothing)),
        mix="processes",
    )
)


@mutant("only the client checks the fence", Store, "claim", mix="processes")
def _(store: Store, tenure: Any) -> bool:
    store.token, store.holder = tenure.token, tenure.holder
    return True


def find(number: int, seed: str, most: float = MOST_HOURS) -> Finding:
    """Run worlds with one bug, alternately from its mix and from all mixes.

    The search ends when one world breaks a promise, or after `most` simulated hours.
    """
    bug, hours, worlds, began = MUTANTS[number], 0.0, 0, time.monotonic()
    choices = [Choice(seed, mix, TTL, bug.pace) for mix in dict.fromkeys((bug.mix, None))]
    with bug.applied():
        while hours < most:
            choice, world = choices[worlds % len(choices)], worlds // len(choices)
            result = run_world(choice, world)
            hours += result.hours
            worlds += 1
            if result.law is not None:
                took = time.monotonic() - began
                return Finding(bug.name, result.law, choice.mix or "any", hours, worlds, took, world)
    return Finding(bug.name, None, "", hours, worlds, time.monotonic() - began, worlds)


def _find(arg: tuple[int, str]) -> Finding:
    return find(*arg)


def find_all(seed: str, processes: int) -> Iterator[Finding]:
    """Search for all bugs, on this number of processes."""
    with workers(processes) as pool:
        yield from pool.imap(_find, [(number, seed) for number in range(len(MUTANTS))])
