"""The visitors of a soak: streams that come and go, and requests to every listener."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from bench.soak.fleet import Fleet
from bench.soak.handovers import epoch_ms
from ops.local.programs import API, SIDECAR
from service.commands.samples import SAMPLES

STREAMS = 8
"""Number of open streams of one task; a new client replaces each client that leaves."""
STREAM_SECONDS = 0.1, 6.0
"""Minimum and maximum duration of a stream, in seconds."""
PAUSE = 0.2
"""Maximum pause between two requests to one task, in seconds."""
WITHIN = 10.0
"""Timeout of a request, in seconds."""

_PORTFOLIOS = [f"/portfolios/{each}" for each in SAMPLES]
_REQUESTS = [
    (API, "API_BIND", [f"{_PORTFOLIOS[0]}/live", f"{_PORTFOLIOS[1]}/history", "/healthz", "/openapi.json"]),
    (API, "INTERNAL_BIND", ["/", "/background/status", "/background/history", "/healthz", "/metrics"]),
    # /is-leader is left out: such a request campaigns, and only the task's API may campaign.
    (SIDECAR, "CONTROL_BIND", ["/status", "/history/daily_scheduler", "/healthz"]),
    (SIDECAR, "METRICS_BIND", ["/metrics", "/leader/background_services", "/healthz"]),
]
_EXPECTED = {"/leader/background_services": (200, 503)}
"""Expected statuses of a path: a follower answers with 503."""


@dataclass(frozen=True)
class Failure:
    """A request that failed; `at` is in ms since 1970."""

    label: str
    at: float
    text: str


@dataclass
class Visits:
    """The counts of a run, and its failures."""

    requests: int = 0
    streams: int = 0
    events: int = 0
    failures: list[Failure] = field(default_factory=list)


class Visitors:
    """The visitors of one task; `visits` counts for all tasks together."""

    def __init__(self, fleet: Fleet, label: str, visits: Visits, chance: random.Random) -> None:
        self._fleet = fleet
        self._label = label
        self._visits = visits
        self._chance = chance

    async def run(self) -> None:
        """Visit until cancelled."""
        timeout = aiohttp.ClientTimeout(total=None, connect=WITHIN, sock_read=WITHIN)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
            group.create_task(self._ask(session))
            for _ in range(STREAMS):
                group.create_task(self._stream(session))

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        while True:
            container, listener, paths = self._chance.choice(_REQUESTS)
            path = self._chance.choice(paths)
            async with self._visit(path), session.get(self._url(container, listener, path)) as answer:
                await answer.read()
                if answer.status not in _EXPECTED.get(path, (200,)):
                    self._failed(f"{path}: status {answer.status}")
                self._visits.requests += 1
            await asyncio.sleep(self._chance.uniform(0, PAUSE))

    async def _stream(self, session: aiohttp.ClientSession) -> None:
        while True:
            path = f"{self._chance.choice(_PORTFOLIOS)}/stream"
            seconds = self._chance.uniform(*STREAM_SECONDS)
            async with self._visit(path), session.get(self._url(API, "API_BIND", path)) as answer:
                if answer.status != 200:
                    self._failed(f"{path}: status {answer.status}")
                    await asyncio.sleep(1)
                    continue
                self._visits.streams += 1
                if await self._ended_early(answer, seconds):
                    self._failed(f"{path}: the stream ended")
                answer.close()  # the client leaves in the middle of the stream
            await asyncio.sleep(self._chance.uniform(0, PAUSE))

    async def _ended_early(self, answer: aiohttp.ClientResponse, seconds: float) -> bool:
        """Read the stream for `seconds`; returns True if the API ended the stream first."""
        try:
            async with asyncio.timeout(seconds):
                async for line in answer.content:
                    self._visits.events += line.startswith(b"data:")
        except TimeoutError:
            return False
        return True

    @asynccontextmanager
    async def _visit(self, path: str) -> AsyncIterator[None]:
        """Record the error if the request in the block fails."""
        try:
            yield
        except (aiohttp.ClientError, TimeoutError) as error:
            self._failed(f"{path}: {str(error) or type(error).__name__}")
            await asyncio.sleep(0.5)

    def _failed(self, text: str) -> None:
        self._visits.failures.append(Failure(self._label, epoch_ms(), text))

    def _url(self, container: str, listener: str, path: str) -> str:
        return f"http://{self._fleet.address(self._label, container, listener)}{path}"
