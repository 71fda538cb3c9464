"""The leases in Redis: the calls of one round trip out, their replies back. Only this module sends their scripts.

One connection, no retries of the client library's own, and a limit on each round trip: a hidden retry of an acquire
that did execute would report 'not acquired', and redis-py's default timeouts can block for a minute. A call is made
again at once, and once, where it surely was not executed: the connection could not be made, or the reply refuses the
EVAL as a whole. A timeout, an end of the stream after the call was sent, and an error from inside a script leave that
open. The second attempt has the anchor, the limit and the tenure of the first.

Whatever comes back, a call ends with a `Reply` or a `Failure`. redis-py does not wrap all that a malformed answer makes
it raise (ValueError for `$abc`, for `-MOVED x`; RecursionError for brackets), hence the broad `except Exception`: Redis
being odd must not end the sidecar. A cancellation is no Exception, and passes.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as Disconnected

from sidecar.election.protocol import Call, Kind, Outcome, Reply, Timings
from sidecar.redis.connection import RedisConnection, log_in
from sidecar.redis.failures import Failure, failure_of
from sidecar.redis.lua import script
from sidecar.redis.server_clock import ServerClock

_SCRIPTS = {name: script("call", "prelude", name).encode() for name in ("acquire", "renew", "release")}
_SCRIPT_OF = {Kind.ACQUIRE: "acquire", Kind.RENEW: "renew", Kind.RELEASE: "release", Kind.LOOK: "release"}

_POLICY_AGE = 9.0
"""Age of the eviction policy, in seconds, from which on the next call asks for it along."""
_REPLACE_ATTEMPTS = 60
"""Divisor of a connection's lifetime that gives the pause after a failed replacement: 11 minutes for 11 hours."""
_REFUSALS = (AskError, BusyLoadingError, ClusterDownError, MasterDownError, ReadOnlyError, TryAgainError)
"""Refusals of a command that another server, or this one on a new connection, may not repeat; MOVED is an ASK."""
_FROM_INSIDE = re.compile(r"script: |user_script|running script")
"""Words of an error that a command inside a script raised: some of the script may have been executed."""


@dataclass(frozen=True, slots=True)
class KeyedCall:
    """A call and the key of the lease that it is for."""

    key: str
    call: Call


class NotExecuted(Failure):
    """A failure after which the call is known not to have been executed, and may be made again at once."""

    __slots__ = ()


class RedisStore:
    """One connection to Redis, made when it is first needed and anew after every failure.

    Args:
        connect: makes a new, unconnected connection; the name is resolved when it connects, so a failover is followed.
        clock: `sidecar.clock.elapsed`.
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
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._instance_id = instance_id
        self._timings = timings
        self._failover_guard = failover_guard
        self._min_replicas = min_replicas
        self._connection: RedisConnection | None = None
        self._server_clock = ServerClock(timings.clock_lasts)
        self._replace_at = self._replace_pause = inf
        self.when_ended: Callable[[], None] = _ignore
        """Called when the connection ends by itself; in the midst of a call, too."""
        self.guard: str | None = None
        """`on`, `off`, or `unavailable` where a script may not ask INFO; None before the first reply."""
        self.eviction_policy: str | None = None
        """The server's maxmemory policy: any but `noeviction` may throw a lease away. None while unknown."""
        self._policy_at = self._guard_at = self._notice_at = -inf
        self.release_notice: str | None = None
        """`sent`, or `refused` where a script may not PUBLISH; None before the first release."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection that has neither failed nor ended."""
        return self._connection is not None and not self._connection.ended

    @property
    def facts_age(self) -> float:
        """Seconds since the oldest of guard, eviction policy and a refusal of the release notice was learned."""
        guard_at = self._guard_at if self._failover_guard else inf
        notice_at = self._notice_at if self.release_notice == "refused" else inf
        return self._clock() - min(self._policy_at, guard_at, notice_at)

    def learn(self, memory: object, *, guarded: bool, notice: str | None) -> None:
        """Take in what was asked beside the calls.

        Args:
            memory: an answer to INFO memory; None where it is refused.
            guarded: whether a script may ask what the guard asks.
            notice: `sent` or `refused`; None where no notice was published.
        """
        self._learn_policy(memory)
        self._learn_guard("on" if guarded else "unavailable")
        self._learn_notice(notice)

    async def open(self) -> Failure | None:
        """Connect before the first call needs it: trouble is told at the start, and the first call is quick."""
        try:
            async with asyncio.timeout(self._timings.call_limit):
                await self._ready()
        except Exception as error:  # noqa: BLE001 - see the module
            return failure_of(error, may_execute=False)
        return None

    @property
    def to_be_replaced(self) -> bool:
        """Whether the server is going to cut the connection, by the age at which it does that."""
        return self.connected and self._clock() >= self._replace_at

    async def replace(self) -> Failure | None:
        """Have a new connection in place of one that is going to be cut; where that fails the old one stays in use."""
        former, former_clock = self._connection, self._server_clock
        self._server_clock = ServerClock(self._timings.clock_lasts)
        failure = None
        try:
            async with asyncio.timeout(self._timings.call_limit):
                await self._greet()
        except Exception as error:  # noqa: BLE001 - see the module
            failure = failure_of(error, may_execute=False)
            self._server_clock = former_clock
            self._replace_at = self._clock() + self._replace_pause
        else:
            if former is not None:
                await former.disconnect(nowait=True)
        return failure

    async def execute(self, calls: Sequence[KeyedCall]) -> list[Reply | Failure]:
        """Make the calls in one round trip, within the earliest of their limits; one result for each, in order."""
        results = await self._round_trip(calls)
        again = [index for index, result in enumerate(results) if isinstance(result, NotExecuted)]
        if again and self._clock() < min(calls[index].call.give_up_at for index in again):
            repeated = await self._round_trip([calls[index] for index in again])
            for index, result in zip(again, repeated, strict=True):
                results[index] = result
        return results

    async def close(self) -> None:
        """Drop the connection, whatever state it is in."""
        connection, self._connection = self._connection, None
        self._server_clock.forget()
        if connection is not None:
            await connection.disconnect(nowait=True)

    def abort(self) -> None:
        """End the connection as if the server had: nothing answers there, though nobody has said that it is closed."""
        if self._connection is not None:
            self._connection.abort()

    async def _round_trip(self, calls: Sequence[KeyedCall]) -> list[Reply | Failure]:
        results: list[Reply | Failure] = []
        problem: Failure | None = None
        sent = False
        try:
            async with asyncio.timeout(max(0.0, min(keyed.call.give_up_at for keyed in calls) - self._clock())):
                connection = await self._ready()
                asks_policy = self._clock() - self._policy_at > _POLICY_AGE
                along = [*self._wait(), *([("INFO", "memory")] if asks_policy else [])]
                packed = connection.pack_commands([self._eval(keyed) for keyed in calls] + along)
                sent = True
                await connection.send_packed_command(packed)
                for keyed in calls:  # what came before a failure counts
                    results.append(await self._result(connection, keyed.key))  # noqa: PERF401
                confirmed = await self._confirmation(connection)
                if asks_policy:
                    await self._read_policy(connection)
        except Exception as error:  # noqa: BLE001 - see the module
            problem = failure_of(error, may_execute=sent)
            if not sent and _could_not_connect(error):
                problem = _not_executed(problem)
        else:
            if isinstance(confirmed, Failure) or not confirmed:
                results = [_unconfirmed(result, confirmed) for result in results]
        if problem is not None:
            results = [] if self._min_replicas else results
            results += [problem] * (len(calls) - len(results))
        if any(isinstance(result, Failure) for result in results):
            if self._connection is not None:
                self._connection.distrust()
            await self.close()  # after an error the server may no longer be the one to talk to
        return results

    async def _ready(self) -> RedisConnection:
        """The connection; another one where it has ended, before anything was written to it."""
        if self._connection is not None and self._connection.ended:
            await self.close()
        return self._connection or await self._greet()

    async def _greet(self) -> RedisConnection:
        """Connect, and learn the server's time and policy."""
        connection = self._connect()
        try:
            await log_in(connection)
            await connection.send_packed_command(connection.pack_commands([("TIME",), ("INFO", "memory")]))
            self._server_clock.observe(_time(await connection.read_response()), self._clock())
            await self._read_policy(connection)
        except BaseException:
            connection.distrust()
            await connection.disconnect(nowait=True)
            raise
        connection.when_ended = lambda: self._ended(connection)
        self._connection = connection
        lifetime = connection.lifetime() or inf
        self._replace_at, self._replace_pause = self._clock() + lifetime, lifetime / _REPLACE_ATTEMPTS
        return connection

    def _ended(self, connection: RedisConnection) -> None:
        if connection is self._connection:  # else we closed it
            self.when_ended()

    def _eval(self, keyed: KeyedCall) -> tuple[bytes | str | int, ...]:
        # EVAL, not EVALSHA: a few KB each heartbeat, and no NOSCRIPT after a restart, a failover or a SCRIPT FLUSH.
        call = keyed.call
        ttl = self._timings.ttl
        return (
            "EVAL",
            _SCRIPTS[_SCRIPT_OF[call.kind]],
            2,
            keyed.key,
            fence_of(keyed.key),
            self._instance_id,
            int(ttl * 1000),
            self._server_clock.at(call.give_up_at, call.sent_at),
            int(self._failover_guard),
            "" if call.token is None else call.token,
            call.tenure,
            int((ttl - self._timings.heartbeat / 2) * 1000),
            int(self._min_replicas > 0),
        )

    def _wait(self) -> list[tuple[bytes | str | int, ...]]:
        return [("WAIT", self._min_replicas, int(self._timings.call_limit * 500))] if self._min_replicas else []

    async def _result(self, connection: RedisConnection, key: str) -> Reply | Failure:
        try:
            answer = await connection.read_response(disconnect_on_error=False)
        except (ResponseError, BusyLoadingError, AuthenticationError) as error:
            failure = failure_of(error, may_execute=False, keys=(key, fence_of(key)))
            return _not_executed(failure) if _refuses_command(error) else failure
        reply, server_time, guard, notice = _parse(answer)
        self._learn_notice(notice)
        if guard is not None:
            self._learn_guard(guard)
        self._server_clock.observe(server_time, self._clock())
        return reply

    async def _read_policy(self, connection: RedisConnection) -> None:
        try:
            self._learn_policy(await connection.read_response())
        except ResponseError:
            self._learn_policy(None)

    def _learn_policy(self, memory: object) -> None:
        policy = re.search(r"maxmemory_policy:(\S+)", _text(memory))
        self.eviction_policy = policy.group(1) if policy else None
        self._policy_at = self._clock()

    def _learn_guard(self, guard: str) -> None:
        self.guard = guard if self._failover_guard else "off"
        self._guard_at = self._clock()

    def _learn_notice(self, notice: str | None) -> None:
        if notice is not None:
            self.release_notice = notice
            self._notice_at = self._clock()

    async def _confirmation(self, connection: RedisConnection) -> bool | Failure:
        """Whether enough replicas have what this round trip wrote."""
        if not self._min_replicas:
            return True
        try:
            return _number(await connection.read_response()) >= self._min_replicas
        except ResponseError as error:
            return failure_of(error, may_execute=True)


def _unconfirmed(result: Reply | Failure, confirmed: bool | Failure) -> Reply | Failure:
    """What was acquired or renewed does not count where too few replicas have it."""
    won = (Outcome.ACQUIRED, Outcome.ADOPTED, Outcome.RENEWED)
    if isinstance(result, Failure) or result.outcome not in won:
        return result
    return confirmed if isinstance(confirmed, Failure) else result._replace(outcome=Outcome.UNCONFIRMED)


def _not_executed(failure: Failure) -> NotExecuted:
    return NotExecuted(failure.kind, failure.text, may_execute=False)


def _could_not_connect(error: Exception) -> bool:
    """Whether no server was reached; one that refuses the password refuses it again."""
    lost = isinstance(error, (Disconnected, OSError)) and not isinstance(error, TimeoutError)
    return lost and not isinstance(error, AuthenticationError)


def _refuses_command(error: Exception) -> bool:
    """Whether the reply refuses the EVAL itself, and not a command of its script."""
    return isinstance(error, _REFUSALS) and not _FROM_INSIDE.search(str(error))


def _ignore() -> None:
    """Nobody wants to know."""


def fence_of(key: str) -> str:
    """The key of a lease's fence: the hash tag keeps it in the lease's slot, the prefix out of a watch on the lease."""
    return f"fence:{{{key}}}"


def _number(answer: object) -> int:
    if not isinstance(answer, int):
        raise InvalidResponse("an answer is not the number that it should be")
    return answer


def _time(answer: Any) -> int:
    """The server's time in µs, from the answer to TIME."""
    try:
        seconds, microseconds = answer
        return int(seconds) * 1_000_000 + int(microseconds)
    except (TypeError, ValueError) as error:
        raise InvalidResponse("the answer to TIME is no time") from error


def _parse(answer: object) -> tuple[Reply, int, str | None, str | None]:
    """A script's answer: the reply, the server's time in µs, guard and notice; shapes are in `scripts/prelude.lua`."""
    try:
        outcome, token, tenure, ttl, server_time, wait, guard, notice, holder = _text(answer).split(" ", 8)
        left = int(ttl)
        reply = Reply(
            outcome=Outcome(outcome),
            holder=holder or None,
            token=int(token) if token.isdigit() else None,
            ttl=left / 1000 if left >= 0 else None,
            wait=int(wait) / 1000,
            tenure=tenure,
        )
        if reply.token is None and reply.outcome in (Outcome.ACQUIRED, Outcome.ADOPTED):
            raise ValueError("a term without a token")
        return reply, int(server_time), None if guard == "-" else guard, None if notice == "-" else notice
    except ValueError as error:
        raise InvalidResponse("a script's answer has not the shape it should have") from error


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
