"""Redis and Postgres for the tasks: the caller's servers, or our own servers, which restart when they die."""

import asyncio
import time
from collections.abc import Mapping

import redis.asyncio
from redis.exceptions import RedisError

from ops.local.addresses import LOOPBACK
from ops.local.console import Console
from ops.local.containers import first_of
from ops.local.servers import PostgresServer, RedisServer, Server, ServerError
from ops.local.settings import RunSettings, UsageError
from sidecar.redis.connection import Connector
from sidecar.redis.store import RedisStore, fence_of
from sidecar.settings import Settings

ACCOUNT = (
    "REDIS_USERNAME", "REDIS_PASSWORD", "REDIS_PASSWORD_FILE",
    "REDIS_TLS_CA_FILE", "REDIS_TLS_CERT_FILE", "REDIS_TLS_KEY_FILE",
)  # fmt: skip
"""The caller's variables that apply together with REDIS_URL."""
START_AGAIN_AFTER = 3.0
"""Seconds from the end of our own server to its restart; the user can see the outage in this time."""

LOOK_EVERY = 0.1
"""Seconds between two checks that our servers run."""

VOUCH_WITHIN = 10.0
"""Seconds within which a new Redis must answer."""


class Backends:
    """The servers of a run. Call `find`, then `start`. After `stop` none of our servers runs."""

    def __init__(self, settings: RunSettings, caller: Mapping[str, str], console: Console) -> None:
        self._settings = settings
        self._caller = caller
        self._console = console
        self._redis: RedisServer | None = None
        self._postgres: PostgresServer | None = None

    def find(self) -> None:
        """Decide which servers to start; UsageError if a server's program is missing."""
        folder = self._settings.folder
        try:
            self._redis = None if self._settings.redis_url else RedisServer(folder / "redis")
            self._postgres = None if self._settings.database_url else PostgresServer(folder / "postgres")
        except ServerError as error:
            raise UsageError(str(error)) from error

    async def start(self, sidecar: Settings) -> None:
        """Start our own servers, and check the caller's Redis.

        Args:
            sidecar: the settings with which a sidecar connects to Redis.

        Raises:
            UsageError: a server does not start, or a sidecar cannot use the caller's Redis.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._up(self._redis, "Redis") if self._redis else self._greet(sidecar))
                if self._postgres is not None:
                    group.create_task(self._up(self._postgres, "Postgres"))
        except ExceptionGroup as failures:
            # not `except*`: in Python 3.11.2 (Debian 12) it wraps a raised error in a group
            if isinstance(first := failures.exceptions[0], UsageError):
                raise first from None
            raise

    @property
    def variables(self) -> dict[str, str]:
        """The containers' variables with the addresses of both servers."""
        known: dict[str, str] = {}
        if self._redis is not None:
            known |= {"REDIS_HOST": LOOPBACK, "REDIS_PORT": str(self._redis.port)}
        elif self._settings.redis_url is not None:
            known |= {"REDIS_URL": self._settings.redis_url}
            known |= {name: self._caller[name] for name in ACCOUNT if self._caller.get(name)}
        url = self._postgres.url if self._postgres else self._settings.database_url
        return known | ({"DATABASE_URL": url} if url else {})

    @property
    def own_redis(self) -> dict[str, str]:
        """The address of our own Redis as shell variables; empty if the Redis is the caller's."""
        return {} if self._redis is None else {"REDIS_URL": self._redis.url.removesuffix("/0")}

    async def vouch_for_redis(self, keys: list[str]) -> None:
        """Record that our new Redis has lost no write, so that the failover guard lets the first terms start at once.

        The guard stays on: after a restart of this Redis no new term starts for one ttl.

        Raises:
            UsageError: Redis has ended already, or does not answer.
        """
        if self._redis is None:
            return
        port = self._redis.port
        try:
            # The library's timeouts are not used: on Python 3.11 they can lose a cancellation (Ctrl-C).
            client = redis.asyncio.Redis(host=LOOPBACK, port=port, decode_responses=True, socket_timeout=None)
            async with asyncio.timeout(VOUCH_WITHIN), client:
                run_id = (await client.info("server"))["run_id"]
                for key in keys:
                    await client.hset(fence_of(key), "run_id", run_id)
        except TimeoutError as error:
            raise UsageError(f"the new Redis has not answered within {VOUCH_WITHIN:g} s") from error
        except RedisError as error:
            raise UsageError(f"Redis ended soon after its start: {error}") from error

    async def keep(self, stopping: asyncio.Event) -> None:
        """Restart our servers when they die, until `stopping` is set. ECS does not do this in the cloud."""
        async with asyncio.TaskGroup() as group:
            for server, name in ((self._redis, "redis"), (self._postgres, "postgres")):
                if server is not None:
                    group.create_task(self._keep(server, name, stopping))

    async def stop(self) -> None:
        """Stop our servers."""
        for server in (self._redis, self._postgres):
            if server is not None:
                await asyncio.to_thread(server.stop)

    def kill(self) -> None:
        """Kill our servers at once."""
        for server in (self._redis, self._postgres):
            if server is not None:
                server.kill()

    async def _up(self, server: Server, name: str) -> None:
        began = time.monotonic()
        try:
            await server.start_beside()
        except ServerError as error:
            raise UsageError(str(error)) from error
        except OSError as error:
            where = error.filename or server.folder  # a full disk error has no file name
            raise UsageError(f"{name} cannot be started: {where}: {error.strerror}") from error
        self._console.step(name, f"{LOOPBACK}:{server.port}, {time.monotonic() - began:.1f} s")

    async def _greet(self, sidecar: Settings) -> None:
        store = RedisStore(
            Connector(sidecar.redis, sidecar.kind),
            "make run",
            sidecar.timings,
            clock=time.monotonic,
            failover_guard=sidecar.failover_guard,
            min_replicas=sidecar.min_replicas,
        )
        failure = await store.open()
        await store.close()
        if failure is not None:
            raise UsageError(f"REDIS_URL: {sidecar.redis.place}: {failure.text}")
        self._console.step("Redis", sidecar.redis.place)

    async def _keep(self, server: Server, name: str, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            await first_of(stopping, timeout=LOOK_EVERY)
            if server.exit_code is None or stopping.is_set():
                continue
            self._console.event(name, f"has ended; it restarts in {START_AGAIN_AFTER:g} s", tone="error")
            await first_of(stopping, timeout=START_AGAIN_AFTER)
            while not stopping.is_set():
                try:
                    await server.start_beside()
                except (ServerError, OSError) as error:
                    self._console.event(name, str(error), tone="error")
                    await first_of(stopping, timeout=START_AGAIN_AFTER)
                else:
                    self._console.event(name, "is back")
                    break
