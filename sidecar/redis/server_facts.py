"""Facts that the sidecar shows about the Redis server, kept up to date while no call of the election asks for them.

The calls of the election also ask for the eviction policy, and most scripts report whether the failover guard works.
But a sidecar may make no calls, or only calls of the other scripts. Without this module, such a sidecar would show the
facts of its first connection forever.
"""

import asyncio
import logging
from collections.abc import Callable

from redis.exceptions import ResponseError

from sidecar.redis.connection import RedisConnection
from sidecar.redis.login import log_in
from sidecar.redis.store import RedisStore

log = logging.getLogger(__name__)

OLD = 20.0
"""Age, in seconds, at which a fact is asked for separately, so that no shown fact is older than 30 s."""
LOOK = 4.0
"""Minimum number of seconds between two checks of the facts' age."""

_GUARD = """
local server, replication = redis.pcall('INFO', 'server'), redis.pcall('INFO', 'replication')
return type(server) == 'string' and type(replication) == 'string' and 1 or 0
"""


class ServerFacts:
    """Asks the election's server for the facts, over a short-lived connection.

    Args:
        connect: makes a companion of the election's connection.
        store: where the facts are kept.
        learned: called when the facts were updated.
        channel: a lease's channel for notices. While notices are refused, each request for the facts also publishes a
            notice, to see whether it is still refused.
        limit: seconds that the server may take to answer.
        look: see `LOOK`.
        old: see `OLD`.
    """

    def __init__(
        self,
        connect: Callable[[], RedisConnection],
        store: RedisStore,
        learned: Callable[[], None],
        *,
        channel: str,
        limit: float,
        look: float = LOOK,
        old: float = OLD,
    ) -> None:
        self._connect = connect
        self._store = store
        self._learned = learned
        self._channel = channel
        self._limit = min(limit, LOOK)
        self._look = look
        self._old = old

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await asyncio.sleep(max(self._look, self._old - self._store.facts_age))
            if self._store.connected and self._store.facts_age > self._old:
                await self._ask()

    async def _ask(self) -> None:
        connection = self._connect()
        try:
            async with asyncio.timeout(self._limit):
                await log_in(connection)
                # A candidate that receives the notice looks at the lease once, and finds no change.
                notices = [("PUBLISH", self._channel, "looked")] if self._store.release_notice == "refused" else []
                info = [("INFO", "memory")] if connection.optional.refusal("INFO") is None else []
                packed = connection.pack_commands([*info, ("EVAL", _GUARD, 0), *notices])
                await connection.send_packed_command(packed)
                policy, guard = await connection.optional.answer(connection, "INFO"), await _answer(connection)
                published = [await _answer(connection) for _ in notices]
            notice = ("refused" if published[0] is None else "sent") if published else None
            self._store.learn(policy, guarded=guard == 1, notice=notice)
            self._learned()
        except TimeoutError:
            # The server may hang. If the store makes calls, these calls show whether the store's connection hangs.
            if connection.reached and self._store.idle:
                self._store.abort()
        except Exception as error:  # noqa: BLE001 - a malformed answer can make redis-py raise any error
            log.debug("The server's facts cannot be read: %s", type(error).__name__)  # the election logs the reason
        finally:
            await connection.disconnect(nowait=True)


async def _answer(connection: RedisConnection) -> object:
    """The answer to a command; None if the server refuses the command."""
    try:
        return await connection.read_response()
    except ResponseError:
        return None
