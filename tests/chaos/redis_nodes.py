"""Redis servers with automatic failover: the code that a cluster and a group with sentinels share.

Each task reaches each server through its own proxies (`tests.chaos.ways`). The replication has no proxy, because the
servers find each other by themselves. To make the replicas lag, the primary disables the user with which they log in.
The servers keep no data on disk, so a server restarts empty.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from redis.asyncio import Redis
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Unreachable
from redis.exceptions import RedisError

from ops.local.servers import RedisServer
from sidecar.redis.store import fence_of
from tests.chaos.redis_pair import ARGUMENTS, client_of
from tests.chaos.schedule import LEASES
from tests.chaos.server_clock import ClockedRedis, server_clock
from tests.chaos.ways import Way

T = TypeVar("T")

REPLICA = "replica"
"""User name of the replicas."""
NODE_ARGUMENTS = (*ARGUMENTS, "--user", REPLICA, "on", "nopass", "~*", "&*", "+@all",
                  "--masteruser", REPLICA, "--masterauth", REPLICA)  # fmt: skip
ANSWERS_WITHIN = 4.0
"""Seconds within which a server must answer."""
STARTS_WITHIN = 60.0
"""Seconds within which the servers must start, even on a busy machine."""
MOVES_WITHIN = 180.0
"""Seconds within which another server must have become the primary, even at the servers' default timings."""


class Unsettled(Exception):
    """The servers do not allow a fault at this time; the text gives the reason."""


class RedisNodes:
    """The servers, and the proxies through which the tasks reach them (`Way`); an async context manager.

    Args:
        folder: for the servers' files.
        tasks: the labels of the tasks that have proxies; every other task connects to the servers directly.
        ports: the ports of the data servers, one for each.
        arguments: more arguments of each data server.
        watching: the ports of the sentinels, which the tasks also need.
        stepping: whether the clock of the servers can step.
    """

    lease_key = "portfolio:{name}:leader"
    """LEASE_KEY of the sidecars."""
    serves_on = 0.0
    """Seconds after a promotion for which the old primary may serve; the guard waits for this time and one ttl."""

    def __init__(
        self,
        folder: Path,
        tasks: list[str],
        ports: Sequence[int],
        arguments: tuple[str, ...] = (),
        watching: Sequence[int] = (),
        *,
        stepping: bool = True,
    ) -> None:
        self.clock = server_clock(folder / "redis-clock") if stepping else None
        self.nodes = [
            ClockedRedis(folder / f"redis-{port}", port=port, arguments=(*NODE_ARGUMENTS, *arguments), clock=self.clock)
            for port in ports
        ]
        self.ways = {task: Way([*ports, *watching]) for task in tasks}
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            for way in self.ways.values():
                await self._open.enter_async_context(way)
            await self.run(*self.nodes)
            await self.form()
            await self._served_for_long()
        except BaseException:
            await self._open.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._open.aclose()

    async def patiently(self, action: Callable[[], Awaitable[T]], within: float = STARTS_WITHIN) -> T:
        """Repeat an action until its result is not False, and return the result; ignore the errors of the servers."""
        async with asyncio.timeout(within):
            while True:
                with suppress(RedisError, OSError):
                    if (result := await action()) is not False:
                        return result
                await asyncio.sleep(0.1)

    async def _served_for_long(self) -> None:
        """Record the primary as the server that acted last; otherwise the guard would delay the run's first term."""
        primary = await self.patiently(self.primary)
        infos = [await self.patiently(partial(ask, primary, "INFO", part)) for part in ("server", "replication")]
        known = dict(line.split(":", 1) for line in "".join(infos).splitlines() if ":" in line)
        for name in LEASES:
            fence = fence_of(self.lease_key.replace("{name}", name))
            fields = "run_id", known["run_id"], "replid", known["master_replid"]
            await self.patiently(partial(ask, primary, "HSET", fence, *fields))

    async def run(self, *servers: RedisServer) -> None:
        """Start servers; the end of the context stops them."""
        for server in servers:
            self._open.callback(server.stop)
            await server.start_beside()

    def port_for(self, task: str, server: int) -> int:
        """Return the port at which a task finds a server."""
        return self.ways[task].port_of(server) if task in self.ways else server

    # What differs between a cluster and sentinels

    async def form(self) -> None:
        """Join the running servers into a cluster or a group."""
        raise NotImplementedError

    def settings(self, task: str) -> dict[str, str]:
        """Return the sidecar's settings for these servers."""
        raise NotImplementedError

    async def primary(self) -> ClockedRedis:
        """Return the server that has the leases.

        Raises:
            redis.exceptions.ConnectionError: no server has the leases at this time.
        """
        raise NotImplementedError

    async def settled(self) -> bool:
        """Return true if there is one primary, and every replica is connected to it."""
        raise NotImplementedError

    async def promote(self) -> None:
        """Make another server the primary, as an operator does.

        Raises:
            Unsettled: the servers refuse.
        """
        raise NotImplementedError

    # Faults

    async def answers(self) -> bool:
        """Return true if the servers have settled."""
        try:
            return await self.settled()
        except (RedisError, OSError, TimeoutError):
            return False

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Redis]:
        """Yield a client that connects to the primary directly, as an operator's redis-cli does.

        Raises:
            RedisError: there is no primary at this time.
        """
        async with client_of(await self.primary()) as client:
            yield client

    async def wait_settled(self, within: float) -> None:
        """Wait until the servers have settled.

        Raises:
            Unsettled: the servers have not settled within `within` seconds.
        """
        try:
            async with asyncio.timeout(within):
                while not await self.answers():  # noqa: ASYNC110 - the servers cannot set an event here
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise Unsettled("the servers have not settled after the last fault") from None

    async def freeze(self, seconds: float) -> None:
        """Freeze the primary for `seconds` (SIGSTOP, SIGCONT); a long freeze causes a failover."""
        server = await self.primary()
        server.pause()
        try:
            await asyncio.sleep(seconds)
        finally:
            server.resume()

    async def restart_empty(self, seconds: float) -> None:
        """Kill the primary, and start it without data `seconds` later, before or after a replica is promoted."""
        server = await self.primary()
        server.kill()
        await asyncio.sleep(seconds)
        await server.start_beside()

    async def fail_over(self, lag: float, seconds: float, killed: Callable[[], None] = lambda: None) -> None:
        """Stop the replication, kill the primary, and start it again without data after a replica is promoted.

        Args:
            lag: seconds without replication before the kill.
            seconds: seconds from the promotion to the start of the old primary.
            killed: called after the primary is killed.
        """
        old = await self.primary()
        if lag:
            await ask(old, "ACL", "SETUSER", REPLICA, "off")
            await ask(old, "CLIENT", "KILL", "TYPE", "replica")
            await asyncio.sleep(lag)
        old.kill()
        killed()
        with suppress(TimeoutError):  # a later check of the run fails if the servers have not settled
            await self.moved(old)
        await asyncio.sleep(seconds)
        await old.start_beside()

    async def fail_over_by_hand(self) -> None:
        """Promote another server while the primary lives, and wait for the end of the promotion."""
        old = await self.primary()
        await self.promote()
        try:
            await self.moved(old)
        except TimeoutError:
            raise Unsettled("no other server was promoted") from None

    async def moved(self, old: RedisServer) -> None:
        """Wait until another server is the primary.

        Raises:
            TimeoutError: no other server is the primary within `MOVES_WITHIN` seconds.
        """
        async with asyncio.timeout(MOVES_WITHIN):
            while True:
                with suppress(RedisError, OSError):
                    if await self.primary() is not old:
                        return
                await asyncio.sleep(0.1)


async def ask(server: RedisServer, *words: str) -> Any:
    """Return a server's answer to a command.

    Raises:
        RedisError, OSError: the server refuses the command, or does not answer.
    """
    connection = Connection(
        port=server.port,
        decode_responses=True,
        protocol=2,
        driver_info=None,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=ANSWERS_WITHIN,
        socket_connect_timeout=ANSWERS_WITHIN,
    )
    try:
        async with asyncio.timeout(ANSWERS_WITHIN):
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command(*words)
            return await connection.read_response()
    except TimeoutError:
        raise Unreachable(f"port {server.port} does not answer") from None
    finally:
        await connection.disconnect(nowait=True)
