"""The connection to Redis of one operator's command: every step has a limit, every error is one line."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.asyncio.connection import Connection
from redis.exceptions import RedisError

from sidecar.redis.connection import Connector, log_in
from sidecar.redis.failures import failure_of
from sidecar.settings import Settings

LIMIT = 5.0
"""Seconds that Redis may take to connect, and for each answer."""


class CommandError(Exception):
    """A command that was not carried out; the text is one line for people."""


class CommandRedis:
    """Sends the scripts of a command."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def run_script(self, text: str, keys: Sequence[str], *arguments: str | int) -> list[str]:
        """The texts that the script answers, as they are in Redis.

        Raises:
            RedisError, OSError: Redis refuses, or does not answer within the limit.
            CommandError: the user has no right to what the script needs.
        """
        try:
            async with asyncio.timeout(LIMIT):
                await self._connection.send_command("EVAL", text, len(keys), *keys, *arguments)
                answer: Any = await self._connection.read_response()
        except RedisError as error:
            raise CommandError(failure_of(error, may_execute=False, keys=keys).text) from None
        return [str(each) for each in answer]


def in_redis(settings: Settings, work: Callable[[CommandRedis], Awaitable[str]]) -> str:
    """Connect, do the work, and return what it returns.

    Raises:
        CommandError: Redis does not answer or refuses, or the work cannot be done.
    """

    async def connected() -> str:
        connect = Connector(settings.redis)
        if connect.login is not None:
            await connect.login.prepare()
        connection = connect()
        try:
            async with asyncio.timeout(LIMIT):
                await log_in(connection)
            return await work(CommandRedis(connection))
        finally:
            await connection.disconnect(nowait=True)

    try:
        return asyncio.run(connected())
    except (RedisError, OSError) as error:
        raise CommandError(f"Redis at {settings.redis.place}: {failure_of(error, may_execute=False).text}") from None
