"""Hearing of a change to a lease at once: one pub/sub connection for all leases of a task.

Every candidate that releases publishes on `KEY:changed`. Where the server allows it, client tracking in broadcast mode,
redirected to this very connection, tells of everything else too: a raw DEL, a SET by an operator, an expiry.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from enum import StrEnum

from redis.asyncio.connection import Connection
from redis.exceptions import ResponseError

log = logging.getLogger(__name__)

_INVALIDATED = "__redis__:invalidate"


class WatchMode(StrEnum):
    """How much a watch hears: every change, releases only, or nothing while it is not connected."""

    TRACKING = "tracking"
    NOTICES = "notices"
    OFF = "off"


class RedisWatch:
    """Tells of changes to keys until it is cancelled, whatever happens to its connection.

    Args:
        connect: makes a new, unconnected connection.
        keys: the keys to watch, by lease name.
        changed: called with a lease's name when something may have happened to it.
        limit: seconds that the server may take to answer.
        interval: seconds between two signs of life; a connection without one is given up.
        uniform: `random.uniform`; spreads the attempts to connect again.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        keys: Mapping[str, str],
        changed: Callable[[str], None],
        *,
        limit: float,
        interval: float,
        uniform: Callable[[float, float], float],
    ) -> None:
        self._connect = connect
        self._keys = keys
        self._changed = changed
        self._limit = limit
        self._interval = interval
        self._uniform = uniform
        self.mode = WatchMode.OFF
        self.refusal: str | None = None
        """Why the server does not track, or lets nobody listen, where it does not."""

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            connection = self._connect()
            try:
                async with asyncio.timeout(self._limit):
                    await self._subscribe(connection)
                self._all_changed()  # what happened meanwhile was not heard
                await self._listen(connection)
            except Exception as error:  # noqa: BLE001 - redis-py raises anything at an answer that is malformed
                # No more than this: the election's own connection tells of it, the watch only makes it faster.
                log.debug("The watch is lost: %s", type(error).__name__)  # its words may repeat the password
            finally:
                self.mode = WatchMode.OFF
                await connection.disconnect(nowait=True)
            await asyncio.sleep(self._limit / 2 * self._uniform(0.75, 1.25))

    async def _subscribe(self, connection: Connection) -> None:
        await connection.connect()  # type: ignore[no-untyped-call]
        mode, refusal = WatchMode.TRACKING, None
        try:
            await connection.send_command("CLIENT", "ID")
            own_id = await connection.read_response()
            prefixes = [part for key in self._keys.values() for part in ("PREFIX", key)]
            await connection.send_command("CLIENT", "TRACKING", "ON", "REDIRECT", own_id, "BCAST", *prefixes)
            await connection.read_response()
        except ResponseError as error:
            mode, refusal = WatchMode.NOTICES, str(error)[:200]
        channels = [f"{key}:changed" for key in self._keys.values()]
        channels += [_INVALIDATED] if mode is WatchMode.TRACKING else []
        await connection.send_command("SUBSCRIBE", *channels)
        try:
            for _ in channels:
                await connection.read_response()
        except ResponseError as error:  # a user of an ACL may be given no channels
            self.refusal = str(error)[:200]
            raise
        self.mode, self.refusal = mode, refusal

    async def _listen(self, connection: Connection) -> None:
        """Pass messages on; raises whatever redis-py does when the connection is no longer good."""
        while True:
            try:
                async with asyncio.timeout(self._interval):
                    message = await connection.read_response(disconnect_on_error=False)
            except TimeoutError:
                await connection.send_command("PING")
                async with asyncio.timeout(self._limit):
                    message = await connection.read_response()
            self._hear(message)

    def _hear(self, message: object) -> None:
        if not isinstance(message, list) or len(message) != 3 or message[0] != "message":
            return  # the answer to a PING
        channel, content = message[1:]
        if channel != _INVALIDATED:
            content = [str(channel).removesuffix(":changed")]
        for name, key in self._keys.items():
            if content is None or key in content:  # None: the whole database was flushed
                self._changed(name)

    def _all_changed(self) -> None:
        for name in self._keys:
            self._changed(name)
