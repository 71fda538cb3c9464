"""A Redis primary and its replica, each task's way to the primary, and what may go wrong with all that.

Every task reaches Redis through a proxy of its own, and the replica reaches the primary through another one, so that
each of these ways can be slow, lossy, silent or cut. A third server waits to be the replica of an isolated one's heir.
The servers keep nothing on disk: a restart is an empty one.
"""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from redis.asyncio import Redis
from redis.exceptions import RedisError

from ops.local.servers import RedisServer
from tests.chaos.ports import quiet_port
from tests.chaos.server_clock import ClockedRedis, server_clock
from tests.support.proxy import Proxy

ARGUMENTS = ("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")


class RedisPair:
    """Two servers and the proxies; an async context manager. `ways` are the proxies by task.

    `clock` is the wall clock of both servers; None where there is no C compiler to make one that steps.
    """

    def __init__(self, folder: Path, tasks: list[str]) -> None:
        self.clock = server_clock(folder / "redis-clock")
        self.primary, self.replica, self._spare = (
            ClockedRedis(folder / name, port=quiet_port(), arguments=ARGUMENTS, clock=self.clock)
            for name in ("redis-a", "redis-b", "redis-c")
        )
        self.ways = {task: Proxy(self.primary.port) for task in tasks}
        self._link = Proxy(self.primary.port)
        for proxy in (*self.ways.values(), self._link):
            proxy.port = quiet_port()
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            for proxy in (*self.ways.values(), self._link):
                await self._open.enter_async_context(proxy)
            for server in (self.primary, self.replica, self._spare):
                self._open.callback(server.stop)
            for server in (self.primary, self.replica):
                await server.start_beside()
            await self._follow(self.replica)
        except BaseException:
            await self._open.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        for server in (self.primary, self.replica):
            server.resume()
        await self._open.aclose()

    def client(self) -> Redis:
        """A client of the primary, as an operator's redis-cli on the server's own machine."""
        return _client(self.primary)

    async def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT so many seconds later."""
        server = self.primary
        server.pause()
        try:
            await asyncio.sleep(seconds)
        finally:
            server.resume()

    async def restart_empty(self, seconds: float) -> None:
        """SIGKILL; it is back, empty, so many seconds later."""
        self.primary.kill()
        await asyncio.sleep(seconds)
        await self.primary.start_beside()

    async def fail_over(self, lag: float, seconds: float) -> None:
        """The replica hears nothing for `lag` seconds, the primary dies, and `seconds` later the replica is promoted.

        The old primary comes back as the new one's replica, without what it knew.
        """
        self._link.replies.hold()
        await asyncio.sleep(lag)
        self.primary.kill()
        await self._link.cut()
        await asyncio.sleep(seconds)
        async with _client(self.replica) as replica:
            await replica.slaveof()
        self.primary, self.replica = self.replica, self.primary
        for proxy in (*self.ways.values(), self._link):
            proxy.target = self.primary.port
        for way in self.ways.values():
            await way.cut()  # a connection to the old primary has ended
        self._link.flow()
        await self.replica.start_beside()
        await self._follow(self.replica)

    async def isolate(self, seconds: float, staying: set[str]) -> None:
        """For so long the primary is cut off with the tasks that stay; the others go on with the replica, promoted.

        That one is given a replica of its own, so that its writes can be confirmed. In the end the old primary dies.
        """
        self._link.black_hole()
        old, self.primary, self.replica, self._spare = self.primary, self.replica, self._spare, self.primary
        async with _client(self.primary) as heir:
            await heir.slaveof()
        try:
            await self.replica.start_beside()
            async with _client(self.replica) as replica:
                await replica.slaveof("127.0.0.1", self.primary.port)
            for task, way in self.ways.items():
                way.target = self.primary.port  # where the name leads from now on; who stays keeps its connection
                if task not in staying:
                    await way.cut()
            await asyncio.sleep(seconds)
        finally:
            old.kill()
            for task in staying:
                await self.ways[task].cut()
            await self._link.cut()
            self._link.target = self.primary.port
            self._link.flow()
        await self._follow(self.replica)

    async def _follow(self, server: RedisServer) -> None:
        async with _client(server) as replica:
            await replica.slaveof("127.0.0.1", self._link.port)

    async def answers(self) -> bool:
        """Whether the primary answers at once."""
        try:
            async with asyncio.timeout(0.5), self.client() as client:
                await client.ping()
        except (RedisError, OSError, TimeoutError):
            return False
        return True


def _client(server: RedisServer) -> Redis:
    return Redis.from_url(server.url, decode_responses=True, socket_timeout=2, socket_connect_timeout=2, retry=None)
