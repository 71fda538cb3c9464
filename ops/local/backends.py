"""Redis and Postgres for the tasks: the caller's, or servers of our own that are started again when they die."""

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
"""Variables of the caller's that count beside REDIS_URL."""
START_AGAIN_AFTER = 3.0
"""Seconds that a server of our own stays away after its process has died, so that its absence can be seen."""

LOOK_EVERY = 0.1

VOUCH_WITHIN = 10.0
"""Seconds."""


class Backends:
    """Where Redis and Postgres are. `find` and `start` first; `stop` leaves none of ours running."""

    def __init__(self, settings: RunSettings, caller: Mapping[str, str], console: Console) -> None:
        self._settings = settings
        self._caller = caller
        self._console = console
        self._redis: RedisServer | None = None
        self._postgres: PostgresServer | None = None

    def find(self) -> None:
        """Decide what is ours to start; UsageError when its program is missing."""
        folder = self._settings.folder
        try:
            self._redis = None if self._settings.redis_url else RedisServer(folder / "redis")
            self._postgres = None if self._settings.database_url else PostgresServer(folder / "postgres")
        except ServerError as error:
            raise UsageError(str(error)) from error

    async def start(self, sidecar: Settings) -> None:
        """Start what is ours.

        Args:
            sidecar: a sidecar's settings, with which it would connect to Redis.

        Raises:
            UsageError: that fails, or the caller's Redis does not let a sidecar in.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._up(self._redis, "Redis") if self._redis else self._greet(sidecar))
                if self._postgres is not None:
                    group.create_task(self._up(self._postgres, "Postgres"))
        except ExceptionGroup as failures:  # not `except*`: Python 3.11.2, Debian 12's, makes a group of what it raises
            if isinstance(first := failures.exceptions[0], UsageError):
                raise first from None
            raise

    @property
    def variables(self) -> dict[str, str]:
        """The variables that tell the containers where both are."""
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
        """The address of a Redis of our own, for a shell."""
        return {} if self._redis is None else {"REDIS_URL": self._redis.url.removesuffix("/0")}

    async def vouch_for_redis(self, keys: list[str]) -> None:
        """Tell the failover guard that our Redis, which is new, has lost no write: the first terms then start at once.

        The guard stays on: when that Redis is killed and started again, no new term starts for one lease.

        Raises:
            UsageError: it is gone already, or does not answer.
        """
        if self._redis is None:
            return
        port = self._redis.port
        try:
            # Without the library's own timeouts: on Python 3.11 a cancellation, which is Ctrl-C, can be lost in them.
            client = redis.asyncio.Redis(host=LOOPBACK, port=port, decode_responses=True, socket_timeout=None)
            async with asyncio.timeout(VOUCH_WITHIN), client:
                run_id = (await client.info("server"))["run_id"]
                for key in keys:
                    await client.hset(fence_of(key), "run_id", run_id)
        except TimeoutError as error:
            raise UsageError(f"Redis, which was just started, has not answered for {VOUCH_WITHIN:g} s") from error
        except RedisError as error:
            raise UsageError(f"Redis is gone since it was started: {error}") from error

    async def keep(self, stopping: asyncio.Event) -> None:
        """Start our servers again when they die, until `stopping`; in the cloud they are not ECS's to start."""
        async with asyncio.TaskGroup() as group:
            for server, name in ((self._redis, "redis"), (self._postgres, "postgres")):
                if server is not None:
                    group.create_task(self._keep(server, name, stopping))

    async def stop(self) -> None:
        """End our servers."""
        for server in (self._redis, self._postgres):
            if server is not None:
                await asyncio.to_thread(server.stop)

    def kill(self) -> None:
        """End our servers at once."""
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
            where = error.filename or server.folder  # a full disk is no file's fault
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
            self._console.event(name, f"is gone; it will be back in {START_AGAIN_AFTER:g} s", tone="error")
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
