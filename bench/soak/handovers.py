"""The hand-overs of a soak: an operator's step-down each second, and a restart of one task once a minute."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import redis.asyncio
from redis.exceptions import RedisError

from bench.soak.fleet import RESTARTED, Fleet
from bench.soak.leads import Causes
from runtime.clock import elapsed
from sidecar.commands.connection import CommandError, CommandRedis
from sidecar.commands.step_down import step_down
from sidecar.history import Entry, entry_of
from sidecar.redis.connection import Connector
from sidecar.redis.store import history_of

EVERY = 1.0
"""Seconds between two step-downs; the leases take turns."""
RESTART_EVERY = 60.0
"""Seconds between two restarts."""
READ_EVERY = 5.0
"""Seconds between two reads of the histories. A history keeps a thousand entries, so no entry is missed."""


def epoch_ms() -> float:
    """Return the wall-clock time in whole ms since 1970, as in the logs."""
    return float(time.time_ns() // 1_000_000)


class HandOvers:
    """Moves the leases, and records why each term ended. Set `stopping` to end after the current hand-over.

    Attributes:
        causes: the causes for the end of a term.
        asked: the number of step-downs.
        restarts: start and end of each restart of a task, in ms since 1970.
        problems: the hand-overs that failed, each with its time in ms since 1970.
    """

    def __init__(self, fleet: Fleet, causes: Causes) -> None:
        self.causes = causes
        self.asked = 0
        self.restarts: list[tuple[float, float]] = []
        self.problems: list[tuple[float, str]] = []
        self.stopping = asyncio.Event()
        self._fleet = fleet
        self._settings = fleet.sidecar_settings()

    async def step_down_each_second(self) -> None:
        """Ask the leaders to step down until `stopping` is set."""
        command = CommandRedis(Connector(self._settings.redis, self._settings.kind), self._settings.redis.place)
        due = elapsed()
        try:
            for lease in itertools.cycle(self._settings.keys):
                if self.stopping.is_set():
                    return
                try:
                    report = await step_down(command, self._settings, lease, say=lambda _: None, clock=elapsed)
                except CommandError as error:
                    # A task that has just begun to stop may release the lease before the request arrives.
                    if not self._restarting():
                        self._failed(str(error))
                else:
                    self.asked += 1
                    self.causes.stepped_down.add(report.document["previous_token"])
                    if report.failure and not self._restarting():
                        self._failed(report.failure)
                due = max(due + EVERY, elapsed())
                await asyncio.sleep(due - elapsed())
        finally:
            await command.close()

    async def restart_now_and_then(self) -> NoReturn:
        """Restart one task, as a deploy does, until cancelled."""
        while True:
            await asyncio.sleep(RESTART_EVERY / 2)
            task = self._fleet.slots[RESTARTED].task
            began = epoch_ms()
            self.causes.stopped[task.task_id] = began
            self.restarts.append((began, float("inf")))
            task.stop("the soak restarts it")
            if not await self._fleet.steady(RESTARTED):
                self._failed(f"{RESTARTED} has not become healthy after a restart")
            self.restarts[-1] = began, epoch_ms()
            await asyncio.sleep(RESTART_EVERY / 2)

    def _failed(self, text: str) -> None:
        self.problems.append((epoch_ms(), f"a hand-over failed: {text}"))

    def _restarting(self) -> bool:
        return bool(self.restarts) and self.restarts[-1][1] == float("inf")


class Histories:
    """Reads the histories of the leases.

    Attributes:
        entries: the entries of each lease since the first read, in order.
        problems: the errors of failed reads.
    """

    def __init__(self, client: "redis.asyncio.Redis", keys: dict[str, str]) -> None:
        self.entries: dict[str, list[Entry]] = {name: [] for name in keys}
        self.problems: list[str] = []
        self._client = client
        self._keys = keys
        self._last = dict.fromkeys(keys, "-")

    async def run(self) -> NoReturn:
        """Read until cancelled."""
        while True:
            await asyncio.sleep(READ_EVERY)
            await self.try_to_read()

    async def delete_keys(self) -> NoReturn:
        """Delete a lease's key now and then: a planted fault, which no sidecar expects."""
        for key in itertools.cycle(self._keys.values()):
            await asyncio.sleep(READ_EVERY)
            await self._client.delete(key)
        raise AssertionError("`cycle` ends only if there are no keys")

    async def try_to_read(self) -> None:
        """Read the new entries, or record the error."""
        try:
            await self._read()
        except RedisError as error:
            self.problems.append(f"the histories cannot be read: {error}")

    async def _read(self) -> None:
        for name, key in self._keys.items():
            found: Any = await self._client.xrange(history_of(key), min=self._last[name])
            for identifier, fields in found:
                self._last[name] = f"({identifier}"
                entry = entry_of(identifier, *(fields.get(each, "") for each in ("event", "token", "holder", "reason")))
                if entry is not None:
                    self.entries[name].append(entry)


@asynccontextmanager
async def histories(fleet: Fleet) -> AsyncIterator[Histories]:
    """Yield a reader of the histories. Its connection is closed at the end of the block."""
    client = redis.asyncio.Redis.from_url(fleet.redis.url, decode_responses=True)
    try:
        yield Histories(client, fleet.sidecar_settings().keys)
    finally:
        await client.aclose()
