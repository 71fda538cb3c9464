"""The connection to Redis of one operator's command: every step has a limit, every error is one line."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.exceptions import AskError, MovedError, RedisError

from sidecar.redis.connection import Connector, RedisConnection, log_in
from sidecar.redis.failures import failure_of
from sidecar.redis.store import HOPS
from sidecar.settings import Settings

LIMIT = 5.0
"""Seconds that Redis may take to connect, and for each answer."""

_Command = tuple[str | int, ...]


class CommandError(Exception):
    """A command that was not carried out; the text is one line for people."""


class CommandRedis:
    """Sends the scripts of a command, in a cluster to the node that has the keys.

    Args:
        connect: makes a new, unconnected connection.
    """

    def __init__(self, connect: Callable[[], RedisConnection]) -> None:
        self._connect = connect
        self._connection = connect()

    async def open(self) -> None:
        """Connect.

        Raises:
            RedisError, OSError: Redis refuses, or does not answer within the limit.
        """
        async with asyncio.timeout(LIMIT):
            await log_in(self._connection)

    async def close(self) -> None:
        """Drop the connection."""
        await self._connection.disconnect(nowait=True)

    async def run_script(self, text: str, keys: Sequence[str], *arguments: str | int) -> list[str]:
        """The texts that the script answers, as they are in Redis.

        Raises:
            RedisError, OSError: Redis refuses, or does not answer within the limit.
            CommandError: the user has no right to what the script needs, or no node of a cluster has the keys.
        """
        command = ("EVAL", text, len(keys), *keys, *arguments)
        try:
            for _ in range(HOPS):
                try:
                    return await _answer(self._connection, command)
                except AskError as error:
                    if not self._connection.redirects:
                        raise
                    node = str(error.host), int(error.port)
                    if not isinstance(error, MovedError):
                        return await self._answer_beside(node, command)
                    self._connection.moved(node)
                    await self.close()
                    self._connection = self._connect()
                    await self.open()
            return await _answer(self._connection, command)
        except RedisError as error:
            raise CommandError(failure_of(error, may_execute=False, keys=keys).text) from None

    async def _answer_beside(self, node: tuple[str, int], command: _Command) -> list[str]:
        """The answer of a node that a slot is migrating to."""
        connection = self._connection.beside(node)
        try:
            async with asyncio.timeout(LIMIT):
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
    return [str(each) for each in answer]


def in_redis(settings: Settings, work: Callable[[CommandRedis], Awaitable[str]]) -> str:
    """Connect, do the work, and return what it returns.

    Raises:
        CommandError: Redis does not answer or refuses, or the work cannot be done.
    """

    async def connected() -> str:
        connect = Connector(settings.redis, settings.kind)
        if connect.login is not None:
            await connect.login.prepare()
        redis = CommandRedis(connect)
        try:
            await redis.open()
            return await work(redis)
        finally:
            await redis.close()

    try:
        return asyncio.run(connected())
    except (RedisError, OSError) as error:
        raise CommandError(f"Redis at {settings.redis.place}: {failure_of(error, may_execute=False).text}") from None
