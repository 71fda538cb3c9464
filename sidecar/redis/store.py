"""The leases in Redis: sends the calls of one round trip, and reads their replies.

Only this module sends the scripts of the election. There is one connection, and each round trip has a limit. The
retries and timeouts of redis-py are off: a hidden retry of an executed release would report 'vacant', and the default
timeouts and retries can block for a minute. A call is repeated at once, and once only, if it certainly was not
executed: the connection could not be made, or the reply refuses the EVAL as a whole. If the call timed out, if the
stream ended after the call was sent, or if the error came from inside a script, the call may have been executed, so it
is not repeated. The second attempt has the start time, the limit and the tenure of the first attempt. In a cluster a
reply may name another node. Then only the refused calls are sent to that node, with a deadline in the time of that
node, and at most `HOPS` times.

If the sentinels do not name a primary, an acquire is not sent, and its failure says nothing about the connection. The
other calls are sent. So an outage of the sentinels ends no term.

The connection is closed after a failure. But if the failure is a complete reply about one key, the connection stays
open as long as another lease uses it. In a cluster it stays open after every such failure except MOVED, which shows
that the slot, and so every lease, has moved.

A call always ends with a `Reply` or a `Failure`. A malformed answer can make redis-py raise any error (ValueError for
`$abc` or `-MOVED x`, RecursionError for deeply nested arrays). Such an error must not end the sidecar, hence the broad
`except Exception`.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf

from redis.exceptions import AskError, AuthenticationError, BusyLoadingError, MovedError, ResponseError
from redis.exceptions import ConnectionError as Disconnected

from sidecar.protocol import Kind, Outcome, Reply, ServerClock, Timings
from sidecar.redis.acquires import has_acquire, unassured, with_acquires
from sidecar.redis.connection import RedisConnection
from sidecar.redis.failures import Failure, failure_of
from sidecar.redis.login import log_in
from sidecar.redis.repeats import (
    NotExecuted,
    could_not_connect,
    is_about_one_key,
    not_executed,
    refuses_command,
    repeatable,
)
from sidecar.redis.replies import eviction_policy, number, parse, server_time
from sidecar.redis.script_calls import Command, KeyedCall, ScriptCalls, fence_of, history_of
from sidecar.server_kind import Node

__all__ = ["HOPS", "KeyedCall", "RedisStore", "Sent", "fence_of", "history_of"]

HOPS = 3
"""Maximum number of nodes to which one call is redirected."""
_POLICY_AGE = 9.0
"""Age of the known eviction policy, in seconds, at which the next call also asks for the policy."""
_REPLACE_ATTEMPTS = 60
"""Divisor of a connection's lifetime that gives the pause after a failed replacement: 11 minutes for 11 hours."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Calls that have been written; `asks_policy` is true if INFO memory, for the eviction policy, follows them."""

    connection: RedisConnection
    asks_policy: bool


class RedisStore:
    """One connection to Redis, opened when it is first needed, and again after it has ended or was closed.

    Args:
        connect: makes a new, unconnected connection. The name is resolved at each connect, so a failover is followed.
        clock: `runtime.clock.elapsed`.
        failover_guard: whether a new term waits after a failover that may have lost a write.
        min_replicas: number of replicas that must confirm a term.
        late_demotion: seconds for which an old primary may still serve after a promotion. The guard waits longer by
            this time.
    """

    def __init__(
        self,
        connect: Callable[[], RedisConnection],
        instance_id: str,
        timings: Timings,
        *,
        clock: Callable[[], float],
        failover_guard: bool,
        min_replicas: int,
        late_demotion: float = 0.0,
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._timings = timings
        self._failover_guard = failover_guard
        self._min_replicas = min_replicas
        self._script_calls = ScriptCalls(
            instance_id, timings, failover_guard=failover_guard, min_replicas=min_replicas, late_demotion=late_demotion
        )
        self._connection: RedisConnection | None = None
        self._served: set[str] = set()  # keys whose last call over this connection was answered
        self._server_clock = ServerClock(timings.server_time_valid_for)
        self._replace_at = self._replace_pause = inf
        self._called_at = -inf
        self.when_ended: Callable[[], None] = _ignore
        """Called when the connection ends by itself, even during a call."""
        self.guard: str | None = None
        """`on`, `off`, or `unavailable` if a script may not call INFO; None while unknown."""
        self.eviction_policy: str | None = None
        """The server's maxmemory policy. Any policy other than `noeviction` may evict a lease. None while unknown."""
        self._policy_at = self._guard_at = self._notice_at = -inf
        self.release_notice: str | None = None
        """`sent`, or `refused` if a script may not PUBLISH; None before the first release."""
        self.history: str | None = None
        """`kept`, or `refused` if a script may not append to a lease's history; None before the first append."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection that has neither failed nor ended."""
        return self._connection is not None and not self._connection.ended

    @property
    def idle(self) -> bool:
        """Whether no call was sent for 1.5 heartbeats. A lease that is held or followed causes more calls."""
        return self._clock() - self._called_at > 1.5 * self._timings.heartbeat

    @property
    def facts_age(self) -> float:
        """Age, in seconds, of the oldest fact: the guard, the eviction policy or a refusal of the release notice."""
        guard_at = self._guard_at if self._failover_guard else inf
        notice_at = self._notice_at if self.release_notice == "refused" else inf
        return self._clock() - min(self._policy_at, guard_at, notice_at)

    def learn(self, memory: object, *, guarded: bool, notice: str | None) -> None:
        """Record facts that were asked for separately from the calls.

        Args:
            memory: an answer to INFO memory; None if the server refused it.
            guarded: whether a script may call INFO, which the guard needs.
            notice: `sent` or `refused`; None if no notice was published.
        """
        self._learn_policy(memory)
        self._learn_guard("on" if guarded else "unavailable")
        self._learn_notice(notice)

    async def open(self) -> Failure | None:
        """Connect before the first call, so that trouble is reported at the start and the first call is quick."""
        try:
            async with asyncio.timeout(self._timings.call_limit):
                await self._ready()
        except Exception as error:  # noqa: BLE001 - see the module
            return failure_of(error, may_execute=False)
        return None

    @property
    def to_be_replaced(self) -> bool:
        """Whether the connection has reached the age at which it must be replaced, before the server cuts it."""
        return self.connected and self._clock() >= self._replace_at

    async def replace(self) -> Failure | None:
        """Replace the connection before the server cuts it. If that fails, the old connection stays in use."""
        former, connection = self._connection, self._connect()
        try:
            async with asyncio.timeout(self._timings.call_limit):
                clock = await self._greet(connection)
        except Exception as error:  # noqa: BLE001 - see the module
            self._replace_at = self._clock() + self._replace_pause
            return failure_of(error, may_execute=False)
        self._served.clear()
        self._adopt(connection, clock)
        if former is not None:
            await former.disconnect(nowait=True)
        return None

    def send(self, calls: Sequence[KeyedCall]) -> Sent | None:
        """Write the calls at once; `execute` then awaits their replies.

        Returns None if the calls were not written: something has to be awaited first, or there was an error.
        """
        connection = self._connection
        if connection is None or not connection.writable or (has_acquire(calls) and not connection.assured):
            return None
        try:
            return self._write(connection, calls, self._server_clock)
        except Exception:  # noqa: BLE001 - nothing was written; `execute` meets the same error and returns a `Failure`
            return None

    async def execute(self, calls: Sequence[KeyedCall], sent: Sent | None = None) -> list[Reply | Failure]:
        """Make the calls in one round trip, within the earliest of their limits.

        Calls that were certainly not executed may be repeated in further round trips (see the module).

        Returns one result for each call, in order. `sent` is the result of `send` for these calls.
        """
        results = await self._round_trip(calls, sent)
        for hops in range(HOPS):
            again = repeatable(results, hops)
            if not again or self._clock() >= min(calls[index].call.give_up_at for index in again):
                break
            refused = results[again[0]]
            beside = refused.hop if isinstance(refused, NotExecuted) and refused.once else None
            repeated = await self._round_trip([calls[index] for index in again], None, beside)
            for index, result in zip(again, repeated, strict=True):
                results[index] = result
        return results

    async def close(self) -> None:
        """Close the connection in any state."""
        connection, self._connection = self._connection, None
        self._served.clear()
        if connection is not None:
            await connection.disconnect(nowait=True)

    def abort(self) -> None:
        """End the connection as if the server had ended it, because the server no longer answers."""
        if self._connection is not None:
            self._connection.abort()

    def _write(
        self, connection: RedisConnection, calls: Sequence[KeyedCall], clock: ServerClock, *, asking: bool = False
    ) -> Sent:
        """Write the calls; `clock` gives the time of the node behind the connection."""
        self._called_at = self._clock()
        commands = self._script_calls.commands(calls, clock, asking=asking)
        asks_policy = self._clock() - self._policy_at > _POLICY_AGE and connection.optional.refusal("INFO") is None
        connection.write([*commands, ("INFO", "memory")] if asks_policy else commands)
        return Sent(connection, asks_policy)

    async def _round_trip(
        self, calls: Sequence[KeyedCall], sent: Sent | None, beside: Node | None = None
    ) -> list[Reply | Failure]:
        """The results of the calls.

        `beside` is the node for these calls, if another node than the connected one has to answer.
        """
        results: list[Reply | Failure] = []
        problem: Failure | None = None
        made, withheld = calls, None
        connection = None if beside is None or self._connection is None else self._connection.beside(beside)
        clock = self._server_clock
        try:
            async with asyncio.timeout(max(0.0, min(keyed.call.give_up_at for keyed in calls) - self._clock())):
                if sent is None and connection is not None:
                    clock = await self._greet(connection)
                    sent = self._write(connection, calls, clock, asking=True)
                elif sent is None:
                    own = await self._ready()
                    clock = self._server_clock
                    if has_acquire(calls):
                        withheld = await unassured(own)
                    if withheld is not None:
                        made = [keyed for keyed in calls if keyed.call.kind is not Kind.ACQUIRE]
                        if not made:
                            return [withheld] * len(calls)
                    sent = self._write(own, made, clock)
                speaking = sent.connection
                for keyed in made:  # results that came before a failure stay valid
                    if connection is not None:
                        await speaking.read_response()  # the reply to ASKING
                    results.append(await self._result(speaking, clock, keyed.key))
                confirmed = await self._confirmation(speaking)
                if sent.asks_policy:
                    self._learn_policy(await speaking.optional.answer(speaking, "INFO"))
        except Exception as error:  # noqa: BLE001 - see the module
            problem = failure_of(error, may_execute=sent is not None)
            if sent is None and could_not_connect(error):
                problem = not_executed(problem)
        else:
            if isinstance(confirmed, Failure) or not confirmed:
                results = [_unconfirmed(result, confirmed) for result in results]
        finally:
            if connection is not None:
                await connection.disconnect(nowait=True)
        if problem is not None:
            results = [] if self._min_replicas else results
            results += [problem] * (len(made) - len(results))
        if connection is None:
            await self._close_after([keyed.key for keyed in made], results)
        return results if withheld is None else with_acquires(calls, withheld, results)

    async def _close_after(self, keys: Sequence[str], results: Sequence[Reply | Failure]) -> None:
        """Close the connection if the results require it."""
        failures = [result for result in results if isinstance(result, Failure)]
        self._served.difference_update(keys)
        self._served.update(key for key, result in zip(keys, results, strict=True) if isinstance(result, Reply))
        sent_on = [failure for failure in failures if isinstance(failure, NotExecuted) and failure.hop]
        useful = self._served or (self._connection is not None and self._connection.redirects)
        if len(sent_on) < len(failures) and not (useful and all(map(is_about_one_key, failures))):
            if self._connection is not None:
                self._connection.distrust()
            await self.close()  # after an error the server may no longer be the right one
        elif not all(failure.once for failure in sent_on):
            await self.close()  # the slot has moved, with all leases

    async def _ready(self) -> RedisConnection:
        """The connection, which is checked before anything is written, and which is replaced if it has ended."""
        if self._connection is not None and not self._connection.writable:
            await self.close()
        if self._connection is not None:
            return self._connection
        connection = self._connect()
        try:
            clock = await self._greet(connection)
        except Disconnected:
            if not connection.optional.ended_connection:
                raise
            connection = self._connect()  # this connection leaves the refused command out
            clock = await self._greet(connection)
        self._adopt(connection, clock)
        return connection

    def _adopt(self, connection: RedisConnection, clock: ServerClock) -> None:
        """Use this connection from now on."""
        connection.when_ended = lambda: self._ended(connection)
        self._connection, self._server_clock = connection, clock
        lifetime = connection.lifetime() or inf
        self._replace_at, self._replace_pause = self._clock() + lifetime, lifetime / _REPLACE_ATTEMPTS

    async def _greet(self, connection: RedisConnection) -> ServerClock:
        """Connect, and read the server's time, policy and run id. The returned clock is for this connection only."""
        clock = ServerClock(self._timings.server_time_valid_for)
        try:
            await log_in(connection)
            greeting: list[Command] = [("TIME",)]
            if connection.optional.refusal("INFO") is None:
                greeting += [("INFO", "memory"), ("INFO", "server")]
            await connection.send_packed_command(connection.pack_commands(greeting))
            clock.observe(server_time(await connection.read_response()), self._clock())
            self._learn_policy(await connection.optional.answer(connection, "INFO"))
            connection.identify(await connection.optional.answer(connection, "INFO"))
            if connection.ended:  # `when_ended` is not set yet, so nobody would notice the end
                raise Disconnected("the server closed the connection after the greeting")
        except BaseException:
            connection.distrust()
            await connection.disconnect(nowait=True)
            raise
        return clock

    def _ended(self, connection: RedisConnection) -> None:
        if connection is self._connection:  # otherwise the sidecar closed the connection
            self.when_ended()

    async def _result(self, connection: RedisConnection, clock: ServerClock, key: str) -> Reply | Failure:
        try:
            answer = await connection.read_response(disconnect_on_error=False)
        except (ResponseError, BusyLoadingError, AuthenticationError) as error:
            failure = failure_of(error, may_execute=False, keys=(key, fence_of(key)))
            return self._refused(error, failure) if refuses_command(error) else failure
        reply, time, guard, notice, history = parse(answer)
        self._learn_notice(notice)
        self.history = history or self.history
        if guard is not None:
            self._learn_guard(guard)
        clock.observe(time, self._clock())
        return reply

    def _refused(self, error: Exception, failure: Failure) -> Failure:
        """The failure of a call that a reply refused, with the node at which the call is repeated."""
        if not isinstance(error, AskError):
            return not_executed(failure)
        node = str(error.host), int(error.port)
        once = not isinstance(error, MovedError)
        if self._connection is None or not self._connection.redirects:
            return not_executed(failure)
        if not once:
            self._connection.moved(node)
        return NotExecuted(failure.kind, failure.text, may_execute=False, hop=node, once=once)

    def _learn_policy(self, memory: object) -> None:
        self.eviction_policy = eviction_policy(memory)
        self._policy_at = self._clock()

    def _learn_guard(self, guard: str) -> None:
        self.guard = guard if self._failover_guard else "off"
        self._guard_at = self._clock()

    def _learn_notice(self, notice: str | None) -> None:
        if notice is not None:
            self.release_notice = notice
            self._notice_at = self._clock()

    async def _confirmation(self, connection: RedisConnection) -> bool | Failure:
        """Whether enough replicas have the writes of this round trip."""
        if not self._min_replicas:
            return True
        try:
            return number(await connection.read_response()) >= self._min_replicas
        except ResponseError as error:
            failure = failure_of(error, may_execute=True)
            return replace(failure, text=f"{failure.text}; MIN_REPLICAS above 0 needs WAIT")


def _unconfirmed(result: Reply | Failure, confirmed: bool | Failure) -> Reply | Failure:
    """The result; an acquire or a renewal that too few replicas have becomes UNCONFIRMED, or the failure of WAIT."""
    won = (Outcome.ACQUIRED, Outcome.ADOPTED, Outcome.RENEWED)
    if isinstance(result, Failure) or result.outcome not in won:
        return result
    return confirmed if isinstance(confirmed, Failure) else result._replace(outcome=Outcome.UNCONFIRMED)


def _ignore() -> None:
    """Do nothing."""
