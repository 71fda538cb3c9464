"""What the sidecar says of its Redis server beside the leases, kept up to date while no call asks.

A call of the election asks along for the eviction policy, and most scripts tell of the guard. A sidecar that makes no
calls, or whose scripts do not ask, would show for ever what was so when it connected.
"""

import asyncio
import logging
from collections.abc import Callable

from redis.exceptions import ResponseError

from sidecar.redis.connection import RedisConnection, log_in
from sidecar.redis.store import RedisStore

log = logging.getLogger(__name__)

OLD = 20.0
"""Age, in seconds, from which on a fact is asked for by itself: what is shown is at most 30 s old."""
LOOK = 4.0
"""Seconds between two looks at the age of the facts."""

_GUARD = """
local server, replication = redis.pcall('INFO', 'server'), redis.pcall('INFO', 'replication')
return type(server) == 'string' and type(replication) == 'string' and 1 or 0
"""


class ServerFacts:
    """Asks the server of the election's own connection, over a connection that lasts as long as the question.

    Args:
        connect: makes a companion of the election's connection.
        store: where the facts are kept.
        learned: called when they have been asked for.
        channel: a lease's channel for notices; while they are refused, one is published to see whether they still are.
        limit: seconds that the server may take.
        look: seconds between two looks at the age of the facts.
        old: age in seconds from which on they are asked for.
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
            await asyncio.sleep(self._look)
            if self._store.connected and self._store.facts_age > self._old:
                await self._ask()

    async def _ask(self) -> None:
        connection = self._connect()
        try:
            async with asyncio.timeout(self._limit):
                await log_in(connection)
                # Whoever hears the notice looks at the lease once, and finds nothing.
                notices = [("PUBLISH", self._channel, "looked")] if self._store.release_notice == "refused" else []
                packed = connection.pack_commands([("INFO", "memory"), ("EVAL", _GUARD, 0), *notices])
                await connection.send_packed_command(packed)
                policy, guard = [await _answer(connection) for _ in range(2)]
                published = [await _answer(connection) for _ in notices]
            notice = ("refused" if published[0] is None else "sent") if published else None
            self._store.learn(policy, guarded=guard == 1, notice=notice)
            self._learned()
        except TimeoutError:
            self._store.abort()  # the server, or the way to it, stands still: to connect again shows whether it does
        except Exception as error:  # noqa: BLE001 - redis-py raises anything at an answer that is malformed
            log.debug("What the server is like cannot be asked: %s", type(error).__name__)  # the election tells why
        finally:
            await connection.disconnect(nowait=True)


async def _answer(connection: RedisConnection) -> object:
    """The answer to a command; None where the server refuses it."""
    try:
        return await connection.read_response()
    except ResponseError:
        return None
