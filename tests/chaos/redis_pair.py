"""A Redis primary and its replica, the proxies between them and the tasks, and the faults of both servers.

Each task reaches Redis through its own proxy, and the replica reaches the primary through another proxy, so each of
these connections can be slow, lossy, silent or cut. A third server becomes the new replica when the primary is
isolated. The servers keep no data on disk, so a server restarts empty.
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

    `clock` is the wall clock of all servers; None without a C compiler, which builds the clock.
    """

    lease_key = "portfolio:{name}:leader"
    """LEASE_KEY of the sidecars."""
    serves_on = 0.0
    """Seconds after a promotion for which an old primary that is not isolated may serve."""

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

    def settings(self, task: str) -> dict[str, str]:
        """Return the sidecar's settings for these servers."""
        return {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(self.ways[task].port)}

    def client(self) -> Redis:
        """Return a client that connects to the primary directly, as an operator's redis-cli does."""
        return client_of(self.primary)

    async def freeze(self, seconds: float) -> None:
        """Freeze the primary for `seconds` (SIGSTOP, SIGCONT)."""
        server = self.primary
        server.pause()
        try:
            await asyncio.sleep(seconds)
        finally:
            server.resume()

    async def restart_empty(self, seconds: float) -> None:
        """Kill the primary, and start it `seconds` later without data."""
        self.primary.kill()
        await asyncio.sleep(seconds)
        await self.primary.start_beside()

    async def fail_over(self, lag: float, seconds: float) -> None:
        """Hold the replication for `lag` seconds, kill the primary, and promote the replica `seconds` later.

        The old primary then starts without data as the replica of the new primary.
        """
        self._link.replies.hold()
        await asyncio.sleep(lag)
        self.primary.kill()
        await self._link.cut()
        await asyncio.sleep(seconds)
        async with client_of(self.replica) as replica:
            await replica.slaveof()
        self.primary, self.replica = self.replica, self.primary
        for proxy in (*self.ways.values(), self._link):
            proxy.target = self.primary.port
        for way in self.ways.values():
            await way.cut()  # the connections to the old primary have ended
        self._link.flow()
        await self.replica.start_beside()
        await self._follow(self.replica)

    async def isolate(self, seconds: float, staying: set[str]) -> None:
        """Cut off the primary and the tasks in `staying` for `seconds`; the other tasks use the promoted replica.

        The promoted server gets a replica, so that its writes can be confirmed. At the end the old primary is killed.
        """
        self._link.black_hole()
        old, self.primary, self.replica, self._spare = self.primary, self.replica, self._spare, self.primary
        async with client_of(self.primary) as heir:
            await heir.slaveof()
        try:
            await self.replica.start_beside()
            async with client_of(self.replica) as replica:
                await replica.slaveof("127.0.0.1", self.primary.port)
            for task, way in self.ways.items():
                way.target = self.primary.port  # for new connections; the staying tasks keep their old connections
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
        async with client_of(server) as replica:
            await replica.slaveof("127.0.0.1", self._link.port)

    async def answers(self) -> bool:
        """Return true if the primary answers within half a second."""
        try:
            async with asyncio.timeout(0.5), self.client() as client:
                await client.ping()
        except (RedisError, OSError, TimeoutError):
            return False
        return True


def client_of(server: RedisServer) -> Redis:
    """Return a client that connects to a server directly."""
    return Redis.from_url(server.url, decode_responses=True, socket_timeout=2, socket_connect_timeout=2, retry=None)
