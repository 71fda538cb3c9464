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

START_AGAIN_AFTER = 3.0
"""Seconds that a server of our own stays away after its process has died, so that its absence can be seen."""

LOOK_EVERY = 0.1


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

    async def start(self) -> None:
        """Start what is ours; UsageError when that fails or the caller's Redis does not answer."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._up(self._redis, "Redis") if self._redis else self._ping())
                if self._postgres is not None:
                    group.create_task(self._up(self._postgres, "Postgres"))
        except* UsageError as errors:
            raise errors.exceptions[0] from None

    @property
    def redis_port(self) -> int | None:
        """The port of our own Redis, None for the caller's."""
        return self._redis.port if self._redis else None

    @property
    def variables(self) -> dict[str, str]:
        """The variables that tell the containers where both are."""
        known: dict[str, str] = {}
        if self._redis is not None:
            known |= {"REDIS_HOST": LOOPBACK, "REDIS_PORT": str(self._redis.port)}
        elif self._settings.redis_url is not None:
            known |= {"REDIS_URL": self._settings.redis_url}
            if self._caller.get("REDIS_PASSWORD"):
                known |= {"REDIS_PASSWORD": self._caller["REDIS_PASSWORD"]}
        url = self._postgres.url if self._postgres else self._settings.database_url
        return known | ({"DATABASE_URL": url} if url else {})

    async def vouch_for_redis(self, keys: list[str]) -> None:
        """Tell the failover guard that our Redis, which is new, has lost no write: the first terms then start at once.

        The guard stays on: when that Redis is killed and started again, no new term starts for one lease.
        """
        if self._redis is None:
            return
        async with redis.asyncio.Redis(host=LOOPBACK, port=self._redis.port, decode_responses=True) as client:
            run_id = (await client.info("server"))["run_id"]
            for key in keys:
                await client.hset(f"fence:{{{key}}}", "run_id", run_id)

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
            raise UsageError(f"{name} cannot be started: {error.filename}: {error.strerror}") from error
        self._console.step(name, f"{LOOPBACK}:{server.port}, {time.monotonic() - began:.1f} s")

    async def _ping(self) -> None:
        url = self._settings.redis_url or ""
        try:
            async with asyncio.timeout(5), redis.asyncio.Redis.from_url(url, retry=None) as client:
                await client.ping()
        except (RedisError, OSError, TimeoutError) as error:
            raise UsageError(f"REDIS_URL: {str(error) or 'no answer within 5 s'}") from error
        self._console.step("Redis", "REDIS_URL")

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
