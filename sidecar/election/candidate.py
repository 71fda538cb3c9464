"""The election loop of a task: carries its leases' decisions to Redis and back, and tells who waits of every change."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from math import inf

from sidecar.election.lease import Lease
from sidecar.election.protocol import Call, Kind, Outcome, Reply, Timings
from sidecar.redis.failures import Failure
from sidecar.redis.reconnects import Reconnects
from sidecar.redis.store import KeyedCall, RedisStore
from sidecar.telemetry import Telemetry

_TROUBLE = {
    Outcome.WRONG_TYPE: "the key is not a string: somebody must delete it",
    Outcome.BAD_FENCE: (
        "the fence is not a hash with a whole number for its token: python -m sidecar fence LEASE mends it"
    ),
    Outcome.FENCE_AHEAD: (
        "the fence's token is more than a day ahead of Redis's clock: python -m sidecar fence LEASE mends it"
    ),
    Outcome.SUPERSEDED: "another process took the term: every sidecar needs an INSTANCE_ID of its own",
    Outcome.UNCONFIRMED: "fewer replicas than MIN_REPLICAS have the last write",
}


class Candidate:
    """All the leases of a task over one connection; what is due goes into one round trip.

    Args:
        leases: the leases by name, their times of `clock`.
        keys: the Redis key of each, by name.
        clock: `sidecar.clock.elapsed`.
        uniform: `random.uniform`; spreads the connections that a fleet makes when a server has closed them all.
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
        self.leases = leases
        self.trouble: dict[str, str | None] = dict.fromkeys(leases)
        """What is wrong with each lease, in a line for people; None where nothing is."""
        self._trouble_at = dict.fromkeys(leases, -inf)
        self._keys = keys
        self._store = store
        self._timings = timings
        self._telemetry = telemetry
        self._clock = clock
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._versions = dict.fromkeys(leases, 0)
        self._progress_at = self._open_at = clock()
        self._reconnects = Reconnects(timings.heartbeat, uniform)
        store.when_ended = self._connection_ended
        self._asleep_until = -inf
        self._calling = self._draining = False

    async def run(self) -> None:
        """Campaign until drained, then close the connection."""
        try:
            await self._open()
            while not all(lease.drained(self._clock()) for lease in self.leases.values()):
                self._wake.clear()
                now = self._progress_at = self._clock()
                calls = {name: call for name, lease in self.leases.items() if (call := lease.next_call(now))}
                self._publish()
                if calls:
                    keyed = [KeyedCall(self._keys[name], call) for name, call in calls.items()]
                    self._calling = True
                    results = await self._store.execute(keyed)
                    self._calling = False
                    for (name, call), result in zip(calls.items(), results, strict=True):
                        self._settle(name, call, result)
                    if not self._store.connected:
                        self._replace_connection()
                    self.tell_server()
                    self._publish()
                else:
                    await asyncio.sleep(0)  # whoever waits for a change is told before it is logged
                    self._report()
                    self._forget_old_trouble()
                    await self._sleep()
                    if self._connects and self._clock() >= self._open_at:
                        await self._open()
                    elif self._store.to_be_replaced and (failure := await self._store.replace()) is not None:
                        self._telemetry.not_replaced(failure)
        finally:
            self._report()
            await self._store.close()

    def progresses(self) -> bool:
        """Whether the loop has come round lately, as it does whatever Redis and the clients do."""
        return self._clock() - self._progress_at < 2 * (self._timings.heartbeat + self._timings.call_limit)

    def version(self, names: Iterable[str]) -> int:
        """A number that rises with every change of one of these leases."""
        now = self._clock()
        return sum(self.leases[name].view(now).version for name in names)

    def asked(self, name: str) -> None:
        """A client asked about a lease."""
        now = self._clock()
        self.leases[name].asked(now)
        self._telemetry.polled(name, now)
        self._wake_for(name, now)

    def granted(self, name: str, arrived: float, client: str, token: int | None) -> float | None:
        """`Lease.grant`: the client that asked at `arrived` is told now."""
        now = self._clock()
        grant = self.leases[name].grant(arrived, now, client, token)
        self._wake_for(name, now)
        return grant

    async def hold(self, names: Sequence[str], version: int, wait: float) -> None:
        """Hold a client's question back until `version` of these leases is no longer theirs, at most `wait` seconds."""
        tickets = {name: self.leases[name].hold() for name in names}
        answered = False
        try:
            until = self._clock() + wait
            while self.version(names) == version and (now := self._clock()) < until:
                ends = [now + self.leases[name].remaining(now) for name in names if self.leases[name].leads(now)]
                with suppress(TimeoutError):
                    async with asyncio.timeout(min([until, *ends]) - now):
                        await self._changed.wait()
            answered = True
        finally:
            now = self._clock()
            for name, ticket in tickets.items():
                self.leases[name].unhold(ticket, now, answered=answered)
                self._wake_for(name, now)

    def resigned(self, name: str, token: int | None, client: str) -> bool:
        """`Lease.resigned`: a client says that its work under a lease has stopped."""
        resigned = self.leases[name].resigned(self._clock(), token, client)
        self._publish()
        self._wake.set()
        return resigned

    def noticed(self, name: str) -> None:
        """Something may have happened to a lease's key."""
        self.leases[name].noticed(self._clock())
        self._wake.set()

    def drain(self) -> None:
        """Begin to give every lease up; `run` returns when that is done."""
        self._draining = True
        for lease in self.leases.values():
            lease.drain(self._clock())
        self._publish()
        self._wake.set()

    def tell_server(self) -> None:
        """Log what the server is like, where that has changed."""
        self._telemetry.server(self._store.guard, self._store.eviction_policy, self._store.release_notice)

    def _wake_for(self, name: str, now: float) -> None:
        if self.leases[name].wake_at(now) < self._asleep_until:
            self._wake.set()

    @property
    def _connects(self) -> bool:
        """Whether a connection is to be made before a call needs it; a drain makes the calls that it needs."""
        return not self._store.connected and not self._draining

    def _connection_ended(self) -> None:
        """The server, or the network, has closed the connection."""
        if not self._calling:  # else the call fails, or is made again
            self._replace_connection()
            self._wake.set()

    def _replace_connection(self) -> None:
        """Connect again soon, whether a call needs it or not."""
        self._open_at = self._clock() + self._reconnects.pause()

    async def _open(self) -> None:
        """Have a connection before it is needed: trouble is told at the start, and is over when it is."""
        failure = await self._store.open()
        if failure is not None:
            self._replace_connection()
            self._telemetry.failed(None, failure)
        else:
            self._telemetry.connected()
            self.tell_server()
        for name in self.leases:
            self.trouble[name] = f"{failure.kind}: {failure.text}" if failure is not None else None
            self._trouble_at[name] = self._clock()

    def _settle(self, name: str, call: Call, result: Reply | Failure) -> None:
        lease, now = self.leases[name], self._clock()
        self._trouble_at[name] = now
        if isinstance(result, Failure):
            lease.failed(call, now, may_execute=result.may_execute)
            self._telemetry.failed(name, result)
            self.trouble[name] = f"{result.kind}: {result.text}"
            return
        self._reconnects.succeeded()
        lease.replied(call, result, now)
        self._telemetry.answered(name, call, result.outcome, now)
        trouble = _TROUBLE.get(result.outcome)
        if result.outcome is Outcome.SUPERSEDED and not _lost_to_another(call, result):
            trouble = None
        if trouble is None and result.outcome in (Outcome.HELD, Outcome.DISABLED) and result.ttl is None:
            trouble = f"the key has no TTL: {result.holder} holds it until somebody deletes it"
        if trouble is not None and trouble != self.trouble[name]:
            self._telemetry.troubled(name, trouble)
        self.trouble[name] = trouble

    def _publish(self) -> None:
        now = self._clock()
        versions = {name: lease.view(now).version for name, lease in self.leases.items()}
        if versions != self._versions:
            self._versions = versions
            self._changed.set()  # wakes whoever waits now; the next one waits for the next change
            self._changed = asyncio.Event()

    def _forget_old_trouble(self) -> None:
        """Without a client nobody looks whether a lease is in trouble still; who campaigns looks each heartbeat."""
        old = self._clock() - max(20.0, 1.2 * self._timings.heartbeat + self._timings.call_limit)
        for name, at in self._trouble_at.items():
            if at < old:
                self.trouble[name] = None

    def _report(self) -> None:
        for name, lease in self.leases.items():
            for transition in lease.transitions():
                self._telemetry.transition(name, transition)

    async def _sleep(self) -> None:
        now = self._clock()
        wake_at = min(lease.wake_at(now) for lease in self.leases.values())
        if self._connects:
            wake_at = min(wake_at, self._open_at)
        self._asleep_until = max(now, min(wake_at, now + self._timings.heartbeat))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._asleep_until - now):
                await self._wake.wait()
        self._asleep_until = -inf


def _lost_to_another(call: Call, reply: Reply) -> bool:
    """Whether another process with our id superseded a call; a look only finds what an earlier process left.

    A fence without a tenure names no process: it was deleted, or thrown away by the server.
    """
    process = reply.tenure.rpartition("-")[0]
    return call.kind is not Kind.LOOK and process not in ("", call.tenure.rpartition("-")[0])
