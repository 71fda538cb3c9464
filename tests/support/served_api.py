"""An API in the test's process with a real database, whose values the test writes."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry

from service.api.auth import Guard, OpenGuard
from service.api.background_status import BackgroundStatus
from service.api.cgroup_memory import MemoryUse
from service.api.health import Health
from service.api.internal_routes import Internal
from service.api.lease_history import LeaseHistories
from service.api.listener import max_streams, runner
from service.api.middleware import Middleware
from service.api.routes import Api
from service.api.store_access import StoreAccess
from service.api.stream_admission import StreamAdmission
from service.api.streams import Streams
from service.clock import utc_now
from service.commands.samples import SAMPLES
from service.database.store import Store
from service.market.calendar import AroundTheClockCalendar
from service.portfolio.freshness import Freshness
from service.telemetry import HttpMetrics
from service.work.background import SCHEDULER_LEASE, TRACKER_LEASE
from service.work.price_watch import PriceWatch
from sidecar.client import LeaseClient
from tests.service.portfolio.reference import worth
from tests.support.listening import listening
from tests.support.work_fakes import FakeTerm

PORTFOLIO = next(iter(SAMPLES))
NOON = datetime(2026, 2, 13, 17, 0, 0, 250_000, tzinfo=UTC)
FRIDAY = date(2026, 2, 13)


@dataclass
class Served:
    """The API's parts, and functions to send requests and write values."""

    store: Store
    session: aiohttp.ClientSession
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    guard: Guard = field(default_factory=OpenGuard)
    url: str = ""
    internal_url: str = ""
    now: datetime = NOON
    """The present time, which decides whether values are stale."""
    sidecar_url: str = "http://127.0.0.1:9"
    last_tick: datetime | None = NOON
    price_watch: PriceWatch = field(default_factory=PriceWatch)
    memory: MemoryUse | None = None
    """The memory use that the API reads."""

    def __post_init__(self) -> None:
        metrics = HttpMetrics(self.registry)
        self.access = StoreAccess(self._connect, metrics)
        calendar = AroundTheClockCalendar()
        freshness = Freshness(calendar, lambda: self.now)
        self.streams = Streams(metrics, freshness, utc_now)
        self.client = LeaseClient(self.sidecar_url)
        leaderships = {lease: self.client.leadership(lease) for lease in (TRACKER_LEASE, SCHEDULER_LEASE)}
        self.histories = LeaseHistories(leaderships)
        self.status = status = BackgroundStatus(
            leaderships,
            self.client.status,
            self.access,
            calendar,
            lambda: self.last_tick,
            lambda: None,
            30.0,
            lambda: NOON,
            lambda: self.price_watch,
        )
        self.admission = StreamAdmission(lambda: self.memory, metrics, max_streams())
        self.health = Health(lambda: self.access.trouble, status.sidecar, lambda: self.admission.memory)
        self.api = Api(self.access, self.streams, self.admission, self.health, metrics, self.guard, freshness)
        self.internal = Internal(status, self.histories, self.health, self.registry, Middleware(metrics, self.access))
        self.writes = 0

    async def _connect(self) -> Store:
        return self.store

    @asynccontextmanager
    async def listening(self, site: type[web.BaseSite], **options: Any) -> AsyncIterator[None]:
        """Serve the public listener on a site of that type, and the internal listener on a free port.

        A second public listener, during the block of the first, uses the same internal listener.
        """
        serving = self.serving = runner(self.api.application(), shutdown_timeout=1)
        async with AsyncExitStack() as stack:
            if not self.internal_url:
                await stack.enter_async_context(self.client)
                internal = runner(self.internal.application(), shutdown_timeout=1)
                self.internal_url = await stack.enter_async_context(listening(internal))
            await serving.setup()
            try:
                await site(serving, **options).start()
                host, port = serving.addresses[0][:2]
                self.url = f"http://{host}:{port}"
                yield
            finally:
                self.streams.close()
                await serving.cleanup()
                await self.status.close()
                await self.histories.close()

    async def get(self, path: str, method: str = "GET", **more: Any) -> tuple[int, Any]:
        """Status and JSON of an answer of the public listener."""
        return await self._ask(method, self.url + path, **more)

    async def get_internal(self, path: str, method: str = "GET", **more: Any) -> tuple[int, Any]:
        """Status and JSON of an answer of the internal listener."""
        return await self._ask(method, self.internal_url + path, **more)

    async def _ask(self, method: str, url: str, **more: Any) -> tuple[int, Any]:
        async with self.session.request(method, url, **more) as response:
            assert response.content_type == "application/json", await response.text()
            return response.status, await response.json()

    async def write_live(self, value: str) -> None:
        """Commit a value that is a second newer than the last one, with its notification."""
        await self.store.claim_fence(FakeTerm(7, "one"))
        self.writes += 1
        as_of = NOON + timedelta(seconds=self.writes - 1)
        async with self.store.fenced(FakeTerm(7, "one"), worth(PORTFOLIO, value, "100", NOON)) as writes:
            await writes.live(FRIDAY, as_of)
            await writes.notify(as_of)

    async def write_history(self, days: list[date]) -> None:
        """Commit a row for each of the days, worth 1.1, 2.1, 3.1, ... dollars."""
        await self.store.claim_fence(FakeTerm(7, "one"))
        for number, day in enumerate(days, start=1):
            values = worth(PORTFOLIO, f"{number}.1", "100", NOON)
            async with self.store.fenced(FakeTerm(7, "one"), values) as writes:
                await writes.history("daily_eod", day, origin="captured", overwrite="none")
