"""The election loop of a task: makes the calls to Redis for all leases, and wakes held requests at every change."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from math import inf

from sidecar.election.agreement import LeaseTtl
from sidecar.election.lease import Lease
from sidecar.protocol import RESIGN_ANSWER_DELAY, Call, Kind, LeaseStatus, Outcome, Reply, Timings, View
from sidecar.redis.failures import Failure
from sidecar.redis.reconnects import reconnect_backoff
from sidecar.redis.store import KeyedCall, RedisStore, Sent
from sidecar.telemetry import Telemetry

_TROUBLE = {
    Outcome.WRONG_TYPE: "the key is not a string: somebody must delete it",
    Outcome.BAD_FENCE: (
        "the fence is not a hash with a whole number for its token: python -m sidecar fence LEASE repairs it"
    ),
    Outcome.FENCE_AHEAD: (
        "the fence's token is more than a day ahead of Redis's clock: python -m sidecar fence LEASE repairs it"
    ),
    Outcome.SUPERSEDED: "another process took the term: every sidecar needs a different INSTANCE_ID",
    Outcome.UNCONFIRMED: "fewer replicas than MIN_REPLICAS have the last write",
}


class Candidate:
    """All leases of a task. They share one connection, and calls that are due at the same time share one round trip.

    Only the candidate accesses the leases: the control listener and the metrics call methods of the candidate.

    Args:
        leases: the leases by name. Their times are times of `clock`.
        keys: the Redis key of each lease, by name.
        store: carries the calls to Redis.
        timings: the durations of the protocol.
        telemetry: logs and counts what happens.
        clock: `runtime.clock.elapsed`.
        uniform: draws a number between two bounds, like `random.uniform`; spreads the new connections of a fleet after
            a server has closed all connections.
    """

    def __init__(
        self,
        leases: Mapping[str, Lease],
        keys: Mapping[str, str],
        store: RedisStore,
        timings: Timings,
        telemetry: Telemetry,
        *,
        clock: Callable[[], float],
        uniform: Callable[[float, float], float],
    ) -> None:
        self._leases = leases
        self._trouble: dict[str, str | None] = dict.fromkeys(leases)
        self._trouble_at = dict.fromkeys(leases, -inf)
        self._not_connected: str | None = None  # the trouble of the last failed attempt to connect
        self._key_expires_at: dict[str, float | None] = dict.fromkeys(leases)
        self._ttls = {name: LeaseTtl(timings) for name in leases}
        self._keys = keys
        self._store = store
        self._timings = timings
        self._telemetry = telemetry
        self._clock = clock
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._versions = dict.fromkeys(leases, 0)
        self._unpublished: set[str] = set()  # leases whose resign is not answered yet
        self._progress_at = self._open_at = clock()
        self._reconnects = reconnect_backoff(timings.heartbeat, uniform)
        store.when_ended = self._connection_ended
        self.choose_watch: Callable[[str, bool], None] = lambda _, __: None
        """Called after each reply about a lease, with the lease's name and whether the lease needs a direct watch."""
        self._asleep_until = -inf
        self._under_way: tuple[dict[str, Call], Sent | None] | None = None  # the calls of a round trip
        self._draining = False

    async def run(self) -> None:
        """Campaign until every lease is drained, then close the connection."""
        try:
            await self._open()
            while not all(lease.drained(self._clock()) for lease in self._leases.values()):
                self._wake.clear()
                self._progress_at = self._clock()
                self._begin_calls()
                self._publish()
                if self._under_way is not None:
                    await self._finish_calls(*self._under_way)
                else:
                    await asyncio.sleep(0)  # held requests are answered before the change is logged
                    self._report_transitions()
                    self._forget_old_trouble()
                    await self._sleep()
                    await self._tend_connection()
        finally:
            self._report_transitions()
            await self._store.close()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the leases."""
        return tuple(self._leases)

    @property
    def not_given_up(self) -> tuple[str, ...]:
        """The names of the leases whose key may have our id."""
        return tuple(name for name, lease in self._leases.items() if lease.may_hold_key)

    def progresses(self) -> bool:
        """Whether the loop has made a round recently. This does not depend on Redis or on the clients."""
        return self._clock() - self._progress_at < 2 * (self._timings.heartbeat + self._timings.call_limit)

    def status(self, name: str) -> LeaseStatus:
        """One lease as it is now. A call of this method does not count as demand."""
        lease, now = self._leases[name], self._clock()
        state, holder, token, version = lease.view(now)
        leads, remaining, trouble = lease.leads(now), lease.remaining(now), self._trouble[name]
        campaigns, step_down = not lease.follows_only, lease.step_down(now)
        expires_at = self._key_expires_at[name] if holder is not None else None
        left = None if expires_at is None else max(0.0, expires_at - now)
        return LeaseStatus(state, holder, token, version, leads, remaining, trouble, campaigns, step_down, left)

    def statuses(self) -> dict[str, LeaseStatus]:
        """All leases as they are now, by name."""
        return {name: self.status(name) for name in self._leases}

    def version(self, names: Iterable[str]) -> int:
        """A number that rises with every change of one of these leases."""
        now = self._clock()
        return sum(self._leases[name].view(now).version for name in names)

    def asked(self, name: str) -> None:
        """Record that a client asked about a lease."""
        now = self._clock()
        self._telemetry.polled(name, now)
        if self._leases[name].asked(now):  # else nothing is due earlier than before
            self._wake_for(name, now)

    def granted(self, name: str, arrived: float, client: str, token: int | None) -> tuple[float | None, View]:
        """The result of `Lease.grant` for a request that arrived at `arrived`, and the lease's view after the grant."""
        lease, now = self._leases[name], self._clock()
        grant = lease.grant(arrived, now, client, token)
        self._wake_for(name, now)
        return grant, lease.view(now)

    def heard_from_redis(self, names: Sequence[str]) -> bool:
        """Whether, for each of these leases, Redis has replied or a call has failed."""
        return all(self._leases[name].heard_from_redis() for name in names)

    async def first_replies(self, names: Sequence[str], limit: float) -> None:
        """Hold a client's request until Redis has replied about these leases, at most `limit` seconds.

        A sidecar that was restarted may still lead: the answer 'no' would end work that may continue.
        """
        if unknown := [name for name in names if not self._leases[name].heard_from_redis()]:
            await self._hold(unknown, self.version(unknown), limit)

    async def hold(self, names: Sequence[str], version: int, wait: float, client: str, token: int | None) -> None:
        """Hold a client's request while its answer stays the same, at most `wait` seconds.

        Args:
            names: the leases that the client asks about.
            version: the version of these leases in the client's last answer.
            wait: the limit, in seconds.
            client: the client's name, as for `Lease.grant`.
            token: the token of the client's last term.
        """
        now = self._clock()
        valid_for = min(self._leases[name].answer_valid_for(now, client, token) for name in names)
        await self._hold(names, version, min(wait, valid_for))

    def resigned(self, name: str, token: int | None, client: str) -> bool:
        """Record that a client's work under a lease has stopped; see `Lease.resigned`."""
        resigned = self._leases[name].resigned(self._clock(), token, client)
        self._act()  # the release is sent before anything else happens
        if resigned:
            self._unpublished.add(name)
            asyncio.get_running_loop().call_later(RESIGN_ANSWER_DELAY, self._publish_resign, name)
        self._publish()
        return resigned

    def noticed(self, name: str) -> None:
        """Record that the key of a lease may have changed."""
        self._leases[name].noticed(self._clock())
        self._act()

    def relay_noticed(self, name: str) -> None:
        """Record a notice that has to be relayed; see `Lease.relay_noticed`."""
        self._leases[name].relay_noticed(self._clock())
        self._act()

    def step_down_noticed(self, name: str) -> None:
        """Record that an operator asked the holder of a lease to step down."""
        self._leases[name].step_down_noticed(self._clock())
        self._wake_for(name, self._clock())

    def drain(self) -> None:
        """Begin to give up every lease; `run` returns when that is done."""
        self._draining = True
        for lease in self._leases.values():
            lease.drain(self._clock())
        self._publish()
        self._wake.set()

    def report_server(self) -> None:
        """Log the properties of the server that have changed."""
        store = self._store
        self._telemetry.server(store.guard, store.eviction_policy, store.release_notice, store.history)

    def _act(self) -> None:
        """If the loop sleeps, send the calls that are due. Then wake the loop, which awaits their replies."""
        if self._asleep_until > -inf:
            self._begin_calls()
        self._wake.set()

    def _begin_calls(self) -> None:
        """Send the calls that are due, unless a round trip is under way."""
        if self._under_way is None:
            now = self._clock()
            calls = {name: call for name, lease in self._leases.items() if (call := lease.next_call(now))}
            if calls:
                self._under_way = calls, self._store.send(self._keyed(calls))

    async def _finish_calls(self, calls: Mapping[str, Call], sent: Sent | None) -> None:
        """Await the results of the calls, and pass them to the leases; calls that were not `sent` are made now."""
        results = await self._store.execute(self._keyed(calls), sent)
        self._under_way = None
        now = self._clock()
        ended = list(zip(calls.items(), results, strict=True))
        for (name, call), result in ended:
            self._settle(name, call, result, now)
        self._publish()
        await asyncio.sleep(0)  # held requests are answered before the results are logged and counted
        for (name, call), result in ended:
            self._report(name, call, result, now)
        if not self._store.connected:
            self._replace_connection()
        self.report_server()
        if any(isinstance(result, Failure) for result in results):
            self._report_transitions()  # in an outage, calls for several leases may follow each other without a pause

    def _keyed(self, calls: Mapping[str, Call]) -> list[KeyedCall]:
        return [KeyedCall(self._keys[name], call) for name, call in calls.items()]

    async def _hold(self, names: Sequence[str], version: int, wait: float) -> None:
        """Hold a client's request while `version` is the version of these leases, at most `wait` seconds."""
        tickets = {name: self._leases[name].hold() for name in names}
        answered = False
        try:
            until = self._clock() + wait
            while self.version(names) == version and (now := self._clock()) < until:
                ends = [now + lease.remaining(now) for name in names if (lease := self._leases[name]).leads(now)]
                with suppress(TimeoutError):
                    async with asyncio.timeout(min([until, *ends]) - now):
                        await self._changed.wait()
            answered = True
        finally:
            now = self._clock()
            for name, ticket in tickets.items():
                self._leases[name].unhold(ticket, now, answered=answered)
                self._wake_for(name, now)

    def _wake_for(self, name: str, now: float) -> None:
        if self._leases[name].wake_at(now) < self._asleep_until:
            self._wake.set()

    @property
    def _wants_connection(self) -> bool:
        """Whether to connect before a call needs the connection; during a drain, only a call makes a connection."""
        return not self._store.connected and not self._draining

    def _connection_ended(self) -> None:
        """Record that the server or the network has closed the connection."""
        if self._under_way is None:  # else the call fails, or is made again
            self._replace_connection()
            self._wake.set()

    def _replace_connection(self) -> None:
        """Schedule a new connection after a pause, whether a call needs the connection or not."""
        self._open_at = self._clock() + self._reconnects.next()

    async def _tend_connection(self) -> None:
        """Connect again, or replace the connection, if either is due and no call is under way."""
        if self._under_way is not None:
            return
        if self._wants_connection and self._clock() >= self._open_at:
            await self._open()
        elif self._store.to_be_replaced and (failure := await self._store.replace()) is not None:
            self._telemetry.not_replaced(failure)

    async def _open(self) -> None:
        """Connect before a call needs the connection, so that the start and the end of an outage are reported early."""
        failure = await self._store.open()
        if failure is not None:
            self._replace_connection()
            self._telemetry.failed(None, failure)
            self._not_connected = f"{failure.kind}: {failure.text}"
            self._trouble = dict.fromkeys(self._leases, self._not_connected)
            self._trouble_at = dict.fromkeys(self._leases, self._clock())
            return
        self._telemetry.connected()
        self.report_server()
        for name, trouble in self._trouble.items():
            if trouble == self._not_connected:  # the trouble of a call stays until a later call is answered
                self._trouble[name] = None

    def _settle(self, name: str, call: Call, result: Reply | Failure, now: float) -> None:
        """Pass the result of a call to its lease."""
        lease = self._leases[name]
        if isinstance(result, Failure):
            lease.failed(call, now, may_execute=result.may_execute)
            return
        if result.outcome is not Outcome.LATE:
            self._key_expires_at[name] = None if result.ttl is None else call.sent_at + result.ttl
        lease.replied(call, result, now)

    def _report(self, name: str, call: Call, result: Reply | Failure, now: float) -> None:
        """Log and count the result of a call; the result came at `now`."""
        self._trouble_at[name] = now
        if isinstance(result, Failure):
            self._telemetry.failed(name, result)
            self._trouble[name] = f"{result.kind}: {result.text}"
            return
        self._reconnects.reset()
        self.choose_watch(name, self._leases[name].watches_directly)
        self._telemetry.answered(name, call, result.outcome, now)
        if call.kind is Kind.RELAY:
            return  # it compares no term, so its outcome shows no trouble
        trouble, disagreement = _trouble_of(call, result), self._ttls[name].observe(result)
        if trouble is not None and trouble != self._trouble[name]:
            self._telemetry.troubled(name, trouble)
        self._telemetry.disagrees(name, disagreement)
        self._trouble[name] = trouble or disagreement

    def _publish(self) -> None:
        now = self._clock()
        versions = {
            name: self._versions[name] if name in self._unpublished else lease.view(now).version
            for name, lease in self._leases.items()
        }
        if versions != self._versions:
            self._versions = versions
            self._changed.set()  # wakes the requests that wait now; later requests wait for the next change
            self._changed = asyncio.Event()

    def _publish_resign(self, name: str) -> None:
        self._unpublished.discard(name)
        self._publish()

    def _forget_old_trouble(self) -> None:
        """Forget trouble that no recent call has shown. A campaign makes a call every heartbeat."""
        old = self._clock() - max(20.0, 1.2 * self._timings.heartbeat + self._timings.call_limit)
        for name, at in self._trouble_at.items():
            if at < old:
                self._trouble[name] = None

    def _report_transitions(self) -> None:
        now = self._clock()
        for name, lease in self._leases.items():
            lease.tick(now)  # the term may have ended during a call for another lease
            for transition in lease.transitions():
                self._telemetry.transition(name, transition)
            view = lease.view(now)
            self._telemetry.state(name, view.state, view.holder)

    async def _sleep(self) -> None:
        now = self._clock()
        wake_at = min(lease.wake_at(now) for lease in self._leases.values())
        if self._wants_connection:
            wake_at = min(wake_at, self._open_at)
        self._asleep_until = max(now, min(wake_at, now + self._timings.heartbeat))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._asleep_until - now):
                await self._wake.wait()
        self._asleep_until = -inf


def _trouble_of(call: Call, reply: Reply) -> str | None:
    """The trouble that a reply shows, in a line for people."""
    if reply.outcome is Outcome.HELD and not reply.holder:
        until = "somebody deletes it" if reply.ttl is None else "it expires"
        return f"the key has an empty value: nobody leads until {until}"
    if reply.outcome in (Outcome.HELD, Outcome.DISABLED) and reply.ttl is None:
        return f"the key has no TTL: {reply.holder} holds it until somebody deletes it"
    if reply.outcome is Outcome.SUPERSEDED and not _superseded_by_other_process(call, reply):
        return None
    return _TROUBLE.get(reply.outcome)


def _superseded_by_other_process(call: Call, reply: Reply) -> bool:
    """Whether a reply with the outcome SUPERSEDED shows another process with our id.

    The reply to a look does not count: a look only finds the term that an earlier process left.

    A fence without a tenure names no process: somebody deleted the fence, or the server evicted it.
    """
    process = reply.tenure.rpartition("-")[0]
    return call.kind is not Kind.LOOK and process not in ("", call.tenure.rpartition("-")[0])
