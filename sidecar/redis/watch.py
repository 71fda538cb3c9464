"""Immediate notices of changes to leases, over one pub/sub connection for all leases of a task.

Every candidate that releases a lease publishes on `KEY:changed`. Where the server allows it, client tracking in
broadcast mode, redirected to this connection, also reports every other change: a raw DEL, a SET by an operator, an
expiry. A watch that requests the channel and the tracking is a direct watch. In a large fleet most candidates have a
relayed watch instead (`sidecar.election.herd`): they subscribe only to a channel on which a release, another candidate,
or an operator's `enable` reports that the lease is vacant.

A user of Redis may lack the right to the tracking or to a channel. The watch requests each of them separately, and a
refusal disables only what was refused: the watch degrades from tracking to notices, and from notices to off. A degraded
watch is set up again every `RETRY` seconds, since no server announces a new right. Behind a proxy or a load balancer,
one address may lead to several servers. A watch that is connected to another server than the election is also degraded,
and is set up again.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from math import inf
from typing import Any

from redis.exceptions import InvalidResponse, NoPermissionError, ResponseError

from runtime.clock import elapsed
from sidecar.protocol import RELAY_NOTICE, STEP_DOWN_NOTICE
from sidecar.redis.connection import RedisConnection
from sidecar.redis.failures import failure_of
from sidecar.redis.reconnects import reconnect_backoff

log = logging.getLogger(__name__)

RETRY = 25.0
"""Seconds after which a degraded watch is set up again; two and a half heartbeats, if that is shorter."""
DIRECT_INTERVALS = 1.25
"""Number of heartbeats without a message after which a direct watch requests a sign of life.

The leader renews the lease in each heartbeat, and the notice of a renewal is a sign of life.
"""
RELAYED_INTERVALS = 3
"""Number of heartbeats without a message after which a relayed watch requests a sign of life.

A relayed watch may receive no message for a long time.
"""

_INVALIDATED = "__redis__:invalidate"
_REFUSALS = ("noperm", "response")
"""Kinds of refusals that last: a missing right, and a command that the server does not know."""
_SEVERAL_SERVERS = (
    "one address leads to several servers, and the watch is at another server than the election; connect to one server,"
    " or set REDIS_CLUSTER=true if the servers are one cluster"
)


class WatchMode(StrEnum):
    """The coverage of a watch.

    `TRACKING` covers every change. `NOTICES` covers only changes that are published: releases, and the operators'
    commands `disable`, `enable` and `step-down`. `RELAYED` covers only the reports that a lease is vacant. `OFF` covers
    nothing; the mode is also `OFF` while the watch is not connected. If only some leases have a direct watch, the mode
    describes the direct watch.
    """

    TRACKING = "tracking"
    NOTICES = "notices"
    RELAYED = "relayed"
    OFF = "off"


class RedisWatch:
    """Reports changes to keys until it is cancelled, and replaces its connection when necessary.

    Args:
        connect: makes a new, unconnected connection.
        keys: the keys to watch, by lease name.
        changed: called with a lease's name when the lease may have changed.
        step_down: called with a lease's name when an operator asked the holder to step down.
        relay: called instead of `changed` after a release that asks for a relay. With None, this watch is not the
            watch of a candidate, and is not counted.
        limit: seconds that the server may take to answer.
        interval: seconds between two renewals of a lease. If a watch receives no message for `DIRECT_INTERVALS` or
            `RELAYED_INTERVALS` intervals, it requests a sign of life, and replaces a connection that gives none.
        uniform: `random.uniform`; spreads the attempts to connect again.
        retry: seconds after which a degraded watch is set up again; None for the default.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        connect: Callable[[], RedisConnection],
        keys: Mapping[str, str],
        changed: Callable[[str], None],
        step_down: Callable[[str], None],
        *,
        relay: Callable[[str], None] | None = None,
        limit: float,
        interval: float,
        uniform: Callable[[float, float], float],
        retry: float | None = None,
        clock: Callable[[], float] = elapsed,
    ) -> None:
        self._connect = connect
        self._keys = keys
        self._changed = changed
        self._step_down = step_down
        self._relay = relay
        self._direct = dict.fromkeys(keys, True)
        self._may_be_relayed = True
        self._chosen_again = False  # a choice has changed since the connection requested its subscriptions
        self._connection: RedisConnection | None = None
        self._limit = limit
        self._interval = interval
        self._uniform = uniform
        self._reconnects = reconnect_backoff(limit / 2, uniform)
        self._retry = min(RETRY, 2.5 * interval) if retry is None else retry
        self._clock = clock
        self.mode = WatchMode.OFF
        self.refusal: str | None = None
        """The reason why the watch is degraded, such as the server's refusals; None if it is not degraded."""
        self._reported: tuple[WatchMode, str | None] = WatchMode.TRACKING, None

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            while True:
                if not await self._watch():
                    self.mode = WatchMode.OFF
                    await asyncio.sleep(self._reconnects.next())
        finally:
            self.mode = WatchMode.OFF

    def choose(self, name: str, direct: bool) -> None:
        """Use a direct or a relayed watch for the lease from now on."""
        direct = direct or not self._may_be_relayed
        if self._direct[name] != direct:
            self._direct[name], self._chosen_again = direct, True
            if self._connection is not None:
                self._connection.abort()  # a subscribed connection cannot change its tracking

    async def _watch(self) -> bool:
        """Watch over one connection. Returns True when the connection is due for replacement, False if it was lost."""
        self._chosen_again = False
        connection = self._connection = self._connect()
        try:
            async with asyncio.timeout(self._limit):
                self.mode, self.refusal, channels = await self._subscribe(connection)
            self._report()
            self._all_changed()  # changes before this moment were not reported
            retry_at = inf if self.refusal is None else self._clock() + self._retry * self._uniform(0.8, 1.0)
            retry_at = min(retry_at, self._clock() + (connection.lifetime() or inf))
            if channels:
                await self._listen(connection, channels[0], retry_at)
            else:
                await connection.disconnect(nowait=True)
                await asyncio.sleep(retry_at - self._clock())
        except Exception as error:  # noqa: BLE001 - a malformed answer can make redis-py raise any error
            if self._chosen_again:
                return True
            # At debug level only: the election's own connection reports an outage, and the election needs no watch.
            log.debug("The watch is lost: %s", type(error).__name__)  # the error's text may repeat the password
            return False
        else:
            return True
        finally:
            self._connection = None
            await connection.disconnect(nowait=True)

    async def _subscribe(self, connection: RedisConnection) -> tuple[WatchMode, str | None, list[str]]:
        """Request the tracking and every channel. Returns the mode, the refusals, and the subscribed channels."""
        await connection.connect()
        refusals: list[str] = []
        same_server = connection.identify(await self._ask(connection, [], _is_text, "INFO", "server"))
        self._chosen_again = False
        direct = [key for name, key in self._keys.items() if self._direct[name]]
        # CLIENT comes first, because a connection with a subscription may not send CLIENT.
        tracks = direct and await self._track(connection, refusals, direct)
        relayed = [_relayed_channel(key) for key in self._keys.values() if key not in direct]
        wanted = [_INVALIDATED] if tracks else []
        wanted += [f"{key}:changed" for key in direct] + relayed
        channels = [each for each in wanted if await self._ask(connection, refusals, _is_subscribed, "SUBSCRIBE", each)]
        counters = [f"{key}:direct:changed" for key in direct if self._relay is not None]
        refused = [each for each in relayed if each not in channels]
        refused += [
            each
            for each in counters
            if channels and not await self._ask(connection, [], _is_subscribed, "SUBSCRIBE", each)
        ]
        if refused and self._may_be_relayed:
            self._may_be_relayed = False
            log.info(
                "Redis refuses the channel %s, so this task keeps a direct watch until it is restarted", refused[0]
            )
        if not set(relayed) <= set(channels):
            self._direct, self._chosen_again = dict.fromkeys(self._keys, True), True
            raise NoPermissionError("no relayed watch")  # `_watch` connects again, with a direct watch
        if not direct and channels and (same_server or connection.redirects):
            return WatchMode.RELAYED, None, channels
        if _INVALIDATED in channels and same_server:
            return WatchMode.TRACKING, None, channels  # tracking reports releases too, even if their channel is refused
        # Every node of a cluster forwards notices, so a watch at another node lacks only the tracking. Outside a
        # cluster, a server forwards notices only to its replicas.
        if not same_server and (_INVALIDATED in channels or not connection.redirects):
            return WatchMode.NOTICES if connection.redirects else WatchMode.OFF, _SEVERAL_SERVERS, channels
        return WatchMode.NOTICES if channels else WatchMode.OFF, "; ".join(dict.fromkeys(refusals)), channels

    async def _track(self, connection: RedisConnection, refusals: list[str], keys: Sequence[str]) -> bool:
        """Request a message for each change of these keys."""
        prefixes = [part for key in keys for part in ("PREFIX", key)]
        own_id = await self._ask(connection, refusals, _is_id, "CLIENT", "ID")
        return own_id is not None and await self._ask(
            connection, refusals, _is_ok, "CLIENT", "TRACKING", "ON", "REDIRECT", str(own_id), "BCAST", *prefixes
        )

    async def _ask(
        self, connection: RedisConnection, refusals: list[str], is_answer: Callable[[object], bool], *words: str
    ) -> Any:
        """The answer to a command. A lasting refusal is appended to `refusals`, and the result is None."""
        command = "INFO" if words[0] == "INFO" else " ".join(words[:2])
        if (refusal := connection.optional.refusal(command)) is not None:
            refusals.append(refusal)
            return None
        await connection.send_command(*words)
        try:
            with connection.optional.reading(command):
                while _is_message(answer := await connection.read_response()):
                    pass  # skip a message before the answer: after the subscription all leases are looked at anyway
        except ResponseError as error:
            failure = failure_of(error, may_execute=False, channels=words[1:])
            if failure.kind not in _REFUSALS:
                raise
            refusals.append(failure.text)
            return None
        if not is_answer(answer):
            raise InvalidResponse(f"no answer to {words[0]}")
        return answer

    def _report(self) -> None:
        """Log each change of the mode once, with its consequence and its remedy."""
        if (self.mode, self.refusal) == self._reported or self.mode is WatchMode.RELAYED:
            return
        self._reported = self.mode, self.refusal
        limits = self._interval, self._retry
        if self.mode is WatchMode.TRACKING:
            log.info("The watch receives every change again")
        elif self.mode is WatchMode.NOTICES:
            log.warning(
                "The watch receives only releases and operators' commands: %s. A key that expires, or that somebody"
                " changes by hand, is noticed within %g s, not at once. A new right is used within %g s",
                self.refusal, *limits,
            )  # fmt: skip
        else:
            log.warning(
                "There is no watch: %s. A hand-over takes up to %g s instead of milliseconds."
                " A new right is used within %g s", self.refusal, *limits,
            )  # fmt: skip

    async def _listen(self, connection: RedisConnection, channel: str, until: float) -> None:
        """Pass messages on until `until`. Raises redis-py's errors or TimeoutError when the connection is lost.

        The sign of life is the answer to a repeated SUBSCRIBE to `channel`, which needs no right to PING.
        """
        interval = self._interval * (RELAYED_INTERVALS if self.mode is WatchMode.RELAYED else DIRECT_INTERVALS)
        while not self._chosen_again and (left := until - self._clock()) > 0:
            try:
                async with asyncio.timeout(min(interval, left)):
                    message = await connection.read_response(disconnect_on_error=False)
            except TimeoutError:
                await connection.send_command("SUBSCRIBE", channel)
                async with asyncio.timeout(self._limit):
                    message = await connection.read_response()
            self._hear(message)

    def _hear(self, message: Any) -> None:
        self._reconnects.reset()
        if not _is_message(message):
            return  # the answer to a SUBSCRIBE
        channel, content = message[1:]
        for name, key in self._keys.items():
            if channel == _INVALIDATED:
                if content is None or key in content:  # None: the whole database was flushed
                    self._changed(name)
            elif channel in (f"{key}:changed", _relayed_channel(key)):
                happened = {STEP_DOWN_NOTICE: self._step_down, RELAY_NOTICE: self._relay}.get(content)
                (happened or self._changed)(name)

    def _all_changed(self) -> None:
        for name in self._keys:
            self._changed(name)


def _relayed_channel(key: str) -> str:
    return f"{key}:vacant:changed"


def _is_message(answer: object) -> bool:
    return isinstance(answer, list) and len(answer) == 3 and answer[0] == "message"


def _is_text(answer: object) -> bool:
    return isinstance(answer, str)


def _is_id(answer: object) -> bool:
    return isinstance(answer, int)


def _is_ok(answer: object) -> bool:
    return answer == "OK"


def _is_subscribed(answer: object) -> bool:
    return isinstance(answer, list) and len(answer) == 3 and answer[0] == "subscribe"
