"""A task for the fault tests: a whole sidecar behind its own proxy, and a client that records its beliefs."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import aiohttp

from ops.local.servers import RedisServer
from runtime.clock import elapsed
from tests.support.processes import RealSidecar, get_json, killed_at_exit
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

LEASE = "background_services"
TTL = 8.0
"""LEASE_TTL in seconds: with these timings no lease moves if Redis hangs for four seconds, or a task for two."""
MARGIN = TTL / 6
CALL_LIMIT = 1.0
TIMINGS = {
    "LEASE_TTL": f"{TTL:g}",
    "HEARTBEAT_INTERVAL": "1",
    "GRANT_TTL": "2.5",
    "REDIS_TIMEOUT": f"{CALL_LIMIT:g}",
    "LOG_FORMAT": "json",
}
STEADY = {"LEASE_TTL": "30", "GRANT_TTL": "10", "REDIS_TIMEOUT": "5"}
"""Timings under which no lease or grant ends and no call times out if the machine hangs for seconds."""


@dataclass
class Belief:
    """The time, in seconds of CLOCK_BOOTTIME, during which a client may have acted under a term."""

    task: str
    token: int
    began: float
    end: float


class Task:
    """A sidecar that reaches Redis through `way`, and its client; `beliefs` has every belief of the client."""

    def __init__(self, folder: Path, name: str, way: Proxy, session: aiohttp.ClientSession, **environment: str) -> None:
        self.name = name
        self.way = way
        self.beliefs: list[Belief] = []
        # This RedisServer is never started: it only supplies the address of the proxy.
        self.sidecar = RealSidecar(folder, RedisServer(folder, port=way.port), name, **TIMINGS)
        self.sidecar.environment |= environment
        self.key = self.sidecar.environment["LEASE_KEY"].replace("{name}", LEASE)
        self._session = session

    @property
    def leads(self) -> bool:
        """Whether the client now believes that it leads."""
        return bool(self.beliefs) and elapsed() < self.beliefs[-1].end

    @property
    def token(self) -> int:
        """The token of the last belief; 0 before the first belief."""
        return self.beliefs[-1].token if self.beliefs else 0

    async def ask(self) -> None:
        """Ask once. The belief begins when the answer arrives; its deadline counts from the sending of the request."""
        sent_at = elapsed()
        async with self._session.get(f"{self.sidecar.url}/is-leader/{LEASE}") as response:
            answer = await response.json()
        now = elapsed()
        if not answer["is_leader"]:
            self._stop(now)
            return
        token, until = answer["token"], sent_at + answer["expires_in"]
        if self.leads and token == self.token:
            self.beliefs[-1].end = max(self.beliefs[-1].end, until)
            return
        self._stop(now)
        if now < until:
            self.beliefs.append(Belief(self.name, token, now, until))

    @asynccontextmanager
    async def campaigning(self) -> AsyncIterator[None]:
        """Ask repeatedly during the block; afterwards the client is silent, like a frozen client."""
        asking = asyncio.create_task(self._campaign())
        try:
            yield
        finally:
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking

    async def resign(self) -> None:
        self._stop(elapsed())
        headers = {"X-Lease-Client": "test"}
        async with self._session.post(f"{self.sidecar.url}/resign/{LEASE}", headers=headers) as response:
            assert response.status == 200

    async def status(self) -> dict[str, Any]:
        """The process and the lease from `/status` in one dict; empty without an answer."""
        shown = await get_json(f"{self.sidecar.url}/status")
        return {**shown, **shown["leases"][LEASE]} if shown else {}

    async def has_greeted(self) -> bool:
        """Whether the sidecar has a connection on which Redis has answered."""
        shown = await self.status()
        return bool(shown) and shown["redis"]["eviction_policy"] is not None

    async def _campaign(self) -> None:
        while True:
            with suppress(aiohttp.ClientError, TimeoutError):
                await self.ask()
            await asyncio.sleep(0.02)

    def _stop(self, now: float) -> None:
        if self.leads:
            self.beliefs[-1].end = now


@asynccontextmanager
async def running(*tasks: Task) -> AsyncIterator[None]:
    """Start the sidecars, and wait until they are connected to Redis; the end of the block ends them."""
    with killed_at_exit(*(task.sidecar for task in tasks)):
        for task in tasks:
            task.sidecar.start()
        for task in tasks:
            await eventually(task.has_greeted, within=60)
        yield


def terms(task: Task) -> set[int]:
    """The tokens under which the client believed that it led."""
    return {belief.token for belief in task.beliefs}


def two_believers(tasks: Iterable[Task]) -> list[tuple[Belief, Belief]]:
    """Each pair of overlapping beliefs of two tasks."""
    return [
        (belief, other)
        for one, another in combinations(tasks, 2)
        for belief in one.beliefs
        for other in another.beliefs
        if belief.began < other.end and other.began < belief.end
    ]


def tokens_in_order(tasks: Iterable[Task]) -> list[int]:
    """The token of each belief, in the order of the beliefs' starts."""
    beliefs = sorted((belief for task in tasks for belief in task.beliefs), key=lambda belief: belief.began)
    return [belief.token for belief in beliefs]
