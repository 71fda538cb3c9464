"""The connection to Redis of one operator's command: every step has a limit, every error is one line."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from redis.exceptions import AskError, InvalidResponse, MovedError

from sidecar.redis.connection import Connector, RedisConnection
from sidecar.redis.failures import failure_of
from sidecar.redis.login import log_in
from sidecar.redis.store import HOPS
from sidecar.settings import Settings

T = TypeVar("T")

CONNECT_LIMIT = 12.0
"""Seconds that a connection and its login may take. If the first name server is dead, a lookup takes 5 s. The limit
allows two such lookups: of a sentinel or a cluster node, and of the server that the sentinel or the node names."""
LIMIT = 5.0
"""Seconds that Redis may take for each answer."""

MALFORMED = "the answer of Redis does not have the shape that the script returns"
"""Error for the answer of a program that is not Redis."""

_WITHOUT_SENTINELS = (
    "(set REDIS_HOST and REDIS_PORT of the primary, in place of REDIS_SENTINELS, to connect without sentinels) "
)
"""Hint for an operator whose sentinels name no primary."""

_REFUSALS = ("noperm", "response", "wrongtype", "oom")
"""Kinds of failures that show that the right server has answered."""

_Command = tuple[str | int, ...]


class CommandError(Exception):
    """A command that was not carried out; the text is one line for people."""


class CommandRedis:
    """Sends the scripts of a command; in a cluster, to the node that has the keys.

    A connection that has failed is replaced at the next script.

    Args:
        connector: makes new, unconnected connections.
        place: where Redis is, for people.
    """

    def __init__(self, connector: Connector, place: str) -> None:
        self.connector = connector
        self.place = place
        self._connection: RedisConnection | None = None
        self.when_ended: Callable[[], None] = _ignore
        """Called when the connection ends by itself."""

    async def close(self) -> None:
        """Drop the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.when_ended = _ignore
            await connection.disconnect(nowait=True)

    def abort(self) -> None:
        """End the connection as if the server had closed it, because the leases are at another server now."""
        if self._connection is not None:
            self._connection.abort()

    async def run_script(
        self, text: str, keys: Sequence[str], *arguments: str | int, words: int | None = None
    ) -> list[str]:
        """The raw texts of the script's answer, not yet escaped; `words` is their number, if the number is fixed.

        Raises:
            CommandError: Redis refuses, or does not answer within the limit; the user lacks a right that the script
                needs; or no node of a cluster has the keys.
        """
        connection = await self._opened()
        try:
            answer = await self._answer(connection, ("EVAL", text, len(keys), *keys, *arguments))
            if words not in (None, len(answer)):
                raise InvalidResponse(MALFORMED)
        except asyncio.CancelledError:
            await self.close()  # the script's answer would be read as the answer to the next script
            raise
        except CommandError:
            raise
        except Exception as error:  # noqa: BLE001 - a malformed answer can make redis-py raise any error
            failure = failure_of(error, may_execute=False, keys=keys)
            if failure.kind in _REFUSALS:
                raise CommandError(failure.text) from None
            connection.distrust()
            await self.close()
            raise CommandError(f"Redis at {self.place}: {failure.text}") from None
        return answer

    async def _opened(self) -> RedisConnection:
        if self._connection is not None and not self._connection.ended:
            return self._connection
        await self.close()
        connection = self.connector()
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                await log_in(connection)
        except BaseException as error:
            connection.distrust()
            await connection.disconnect(nowait=True)
            if not isinstance(error, Exception):
                raise
            failure = failure_of(error, may_execute=False)
            hint = _WITHOUT_SENTINELS if failure.kind == "sentinel" else ""
            raise CommandError(f"Redis at {self.place}: {hint}{failure.text}") from None
        connection.when_ended = self._ended
        self._connection = connection
        return connection

    def _ended(self) -> None:
        self.when_ended()

    async def _answer(self, connection: RedisConnection, command: _Command) -> list[str]:
        """The answer of the node that has the keys."""
        for _ in range(HOPS):
            try:
                return await _answer(connection, command)
            except AskError as error:
                if not connection.redirects:
                    raise
                node = str(error.host), int(error.port)
                if not isinstance(error, MovedError):
                    return await _answer_beside(connection.beside(node), command)
                connection.moved(node)
                await self.close()
                connection = await self._opened()
        return await _answer(connection, command)


async def _answer_beside(connection: RedisConnection, command: _Command) -> list[str]:
    """The answer of a node that a slot is migrating to."""
    try:
        async with asyncio.timeout(CONNECT_LIMIT):
            await log_in(connection)
            await connection.send_command("ASKING")
            await connection.read_response()
        return await _answer(connection, command)
    finally:
        await connection.disconnect(nowait=True)


async def _answer(connection: RedisConnection, command: _Command) -> list[str]:
    async with asyncio.timeout(LIMIT):
        await connection.send_command(*command)
        answer: Any = await connection.read_response()
    if not isinstance(answer, list):
        raise InvalidResponse(MALFORMED)
    return [str(each) for each in answer]


def in_redis(settings: Settings, work: Callable[[CommandRedis], Awaitable[T]]) -> T:
    """Do the work over a connection, which is made at the first script, and return the result of the work.

    Raises:
        CommandError: Redis does not answer or refuses, or the work cannot be done.
    """

    async def connected() -> T:
        connector = Connector(settings.redis, settings.kind, limit=CONNECT_LIMIT)
        if connector.login is not None:
            await connector.login.prepare()
        redis = CommandRedis(connector, settings.redis.place)
        try:
            return await work(redis)
        finally:
            with suppress(Exception):
                await redis.close()

    return asyncio.run(connected())


def _ignore() -> None:
    """Do nothing."""
