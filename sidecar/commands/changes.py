"""When to look at the leases again: at once after a change if Redis allows the watch, otherwise every second."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from sidecar.commands.connection import LIMIT, CommandRedis
from sidecar.redis.watch import RedisWatch, WatchMode
from sidecar.server_kind import Sentinels
from sidecar.settings import Settings

POLL = 1.0
"""Seconds between two looks if a change may go unnoticed."""
LONGEST_POLL = 5.0
"""Longest time between two looks, in seconds, if every change is noticed."""
SETTLE = 0.02
"""Seconds for which successive changes are collected for one look."""


class Changes:
    """Wakes its caller when a lease may have changed."""

    def __init__(self, redis: CommandRedis, keys: Mapping[str, str], interval: float) -> None:
        self._event = asyncio.Event()
        self.watch = RedisWatch(
            redis.connector.companion, keys, self._changed, self._changed,
            limit=LIMIT, interval=interval, uniform=random.Random().uniform,  # noqa: S311 - spreads retries
        )  # fmt: skip
        redis.when_ended = self._event.set

    @property
    def late(self) -> str | None:
        """Why changes may be noticed late; None if they are noticed at once, or while the watch is connecting."""
        return None if self.watch.mode is WatchMode.TRACKING else self.watch.refusal

    async def wait(self, most: float) -> None:
        """Wait for a change: at most `most` seconds, and at most `POLL` seconds if a change may go unnoticed."""
        await asyncio.sleep(SETTLE)
        poll = LONGEST_POLL if self.watch.mode is WatchMode.TRACKING else POLL
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(most, poll))):
                await self._event.wait()
        self._event.clear()

    def _changed(self, _: str) -> None:
        self._event.set()


@asynccontextmanager
async def hearing(redis: CommandRedis, settings: Settings, keys: Mapping[str, str]) -> AsyncIterator[Changes]:
    """Notice changes to the leases with these keys, and follow the server, until the `async with` block ends."""
    heartbeat, connector = settings.timings.heartbeat, redis.connector
    changes = Changes(redis, keys, heartbeat)
    tasks = [asyncio.create_task(changes.watch.run())]
    if isinstance(settings.kind, Sentinels):
        tasks.append(asyncio.create_task(connector.follow(redis.abort, heartbeat)))
    if connector.login is not None:
        tasks.append(asyncio.create_task(connector.login.run()))
    try:
        yield changes
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
