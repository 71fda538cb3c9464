"""The life of one API process: what it is made of, and in which order it ends.

On SIGTERM: /healthz turns to 503; the work is stopped and awaited and the leases are resigned, so that another task
leads within milliseconds; only then are the streams ended and the connections drained.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from types import FrameType

from aiohttp import web

from runtime.listener import Limits, Listener
from runtime.metric_lines import log_metrics
from service.address import Address
from service.api.auth import guard_by
from service.api.background_status import BackgroundStatus
from service.api.health import Health
from service.api.internal_routes import Internal
from service.api.limits import INTERNAL_LIMITS
from service.api.listener import connection_limits, runner
from service.api.middleware import Middleware
from service.api.routes import Api
from service.api.store_access import StoreAccess
from service.api.streams import Streams
from service.clock import utc_now
from service.database.connection import side_by_side
from service.database.pool import Room
from service.database.store import Store
from service.database.write_watch import WriteWatch
from service.ending import leave_after
from service.market.calendar import CALENDARS
from service.market.overrides import OverriddenCalendar
from service.portfolio.freshness import Freshness
from service.price_source import price_source
from service.prices import PriceSource
from service.settings import Settings, SettingsError
from service.telemetry import HttpMetrics, LeadershipMetrics, new_registry
from service.work.background import SCHEDULER_LEASE, TRACKER_LEASE, Background
from service.work.load_progress import tell_loading
from service.work.metrics import WorkMetrics
from service.work.override_reader import OverrideReader
from service.work.protection import protection_by
from service.work.scheduler import Scheduler
from service.work.term import Term
from service.work.tracker import Tracker
from sidecar.client import LeaseClient

CONNECTIONS_SHARE = 0.75
"""Of SHUTDOWN_TIMEOUT, how much the open connections may take; the rest is the work's, which needs milliseconds."""
INTERNAL_SHUTDOWN = 0.2
"""Seconds that the internal listener's connections have to end; its answers are short."""
WORK_CONNECTIONS = 5
"""To the database, that the work may have beside those of HTTP, so that neither waits for the other: two of a tick or a
load, two of a job, one to tell how far a load has come. Nothing is connected before there is work."""
LOGGED_METRICS = (
    "portfolio_leading",
    "portfolio_job_runs_waiting",
    "portfolio_job_sessions_given_up",
    "portfolio_database_up",
)
"""Metrics that the log holds too, once a minute: alarms in CloudWatch count from it (ops/aws)."""

logger = logging.getLogger(__name__)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then end in order, within `shutdown_timeout` seconds.

    Raises:
        SettingsError: the address cannot be listened on.
    """
    with _stop_signals() as stop:
        async with LeaseClient(settings.sidecar_url) as client:
            await _Service(settings, client).run(stop)
    logger.info("stopped")


class _Service:
    """The parts of the process, wired."""

    def __init__(self, settings: Settings, client: LeaseClient) -> None:
        self._settings = settings
        self._dsn = settings.database_url.get_secret_value()
        self._room = Room()
        self._writes = WriteWatch()
        self._calendar = OverriddenCalendar(CALENDARS[settings.market_calendar]())
        self._overrides = OverrideReader(self._calendar)
        self._prices: PriceSource = price_source(settings, self._calendar, utc_now)
        registry = self._registry = new_registry()
        metrics = HttpMetrics(registry)
        metrics.market_open.set_function(lambda: self._calendar.current(utc_now()) is not None)
        self._work_metrics = WorkMetrics(registry)
        self._protection = protection_by(settings.ecs_agent_uri, self._work_metrics)
        self._access = StoreAccess(self._connect, metrics, self._writes)
        freshness = Freshness(self._calendar)
        self._streams = Streams(metrics, freshness, utc_now)
        self._background = Background(
            client, writes=self._writes, trouble_for=self._access.trouble_for, recovery=self._access.recovery
        )
        registry.register(LeadershipMetrics(self._background.leaderships))
        self._tracker: Tracker | None = None
        status = BackgroundStatus(
            self._background.leaderships,
            self._access,
            self._calendar,
            self._last_tick,
            self._next_tick,
        )
        self._guard = guard_by(settings)
        self._health = Health(lambda: self._access.trouble, lambda: status.sidecar)
        api = Api(self._access, self._streams, self._health, metrics, self._guard, freshness)
        internal = Internal(status, self._health, registry, Middleware(metrics, self._access))
        self._runner = runner(api.application(), shutdown_timeout=settings.shutdown_timeout * CONNECTIONS_SHARE)
        self._internal_runner = runner(internal.application(), shutdown_timeout=INTERNAL_SHUTDOWN)

    async def run(self, stop: asyncio.Event) -> None:
        """Everything, from the listener's start to the last connection's end."""
        work_store = await Store.connect(
            self._dsn, connections=WORK_CONNECTIONS, at_once=False, room=self._room, writes=self._writes
        )
        try:
            await self._listen()
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read(), name="reading")
                protecting = tasks.create_task(self._protection.run(), name="protecting")
                working = tasks.create_task(self._work(work_store), name="working")
                logging_metrics = tasks.create_task(log_metrics(self._registry, LOGGED_METRICS), name="logging metrics")
                await stop.wait()
                logger.info("stopping: the work first, then the connections")
                self._leave_in_time(working)
                self._health.draining = True
                await _end(working)
                logger.info("the work has stopped and its leases are resigned")
                self._streams.close()
                await self._runner.cleanup()
                await _end(reading)
                await _end(protecting)
                await _end(logging_metrics)
        finally:
            await self._runner.cleanup()
            await self._internal_runner.cleanup()
            await self._access.close()
            await work_store.close()
            await self._prices.aclose()
            await self._guard.aclose()

    def _leave_in_time(self, working: asyncio.Task[None]) -> None:
        """Exit at SHUTDOWN_TIMEOUT at the latest; that is no failure once the work has ended and resigned."""

        def last_words() -> None:
            left = "connections" if working.done() else "the work"
            logger.critical("SHUTDOWN_TIMEOUT is over; leaving, though %s did not end", left)
            logging.shutdown()

        leave_after(self._settings.shutdown_timeout, lambda: 0 if working.done() else 1, last_words)

    async def _connect(self) -> Store:
        return await Store.connect(self._dsn, room=self._room, writes=self._writes)

    async def _listen(self) -> None:
        settings = self._settings
        await _start("API_BIND", settings.api_bind, self._runner, connection_limits())
        await _start("INTERNAL_BIND", settings.internal_bind, self._internal_runner, INTERNAL_LIMITS)
        logger.info("listening on http://%s; for operators on http://%s", settings.api_bind, settings.internal_bind)
        if self._settings.auth == "off":
            logger.warning("AUTH=off: whoever reaches this API may read and change every portfolio")
        if self._settings.price_source == "simulated":
            logger.warning("PRICE_SOURCE=simulated: every price is made up")

    async def _read(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._access.run())
            store = await self._access.connected()
            tasks.create_task(self._overrides.run(store))
            await self._streams.run(store)

    async def _work(self, store: Store) -> None:
        await self._access.connected()
        await self._overrides.known.wait()
        parts = store, self._prices, self._calendar, self._work_metrics
        tracker = self._tracker = Tracker(*parts, interval=self._settings.tracker_interval)
        scheduler = Scheduler(*parts, protection=self._protection)

        async def track(term: Term) -> None:
            await side_by_side((tracker.run(term), tell_loading(store, term, lambda: tracker.loading)))

        await self._background.run({TRACKER_LEASE: track, SCHEDULER_LEASE: scheduler.run})

    def _last_tick(self) -> datetime | None:
        return self._streams.last_tick

    def _next_tick(self) -> datetime | None:
        return self._tracker.next_run if self._tracker is not None else None


async def _start(setting: str, address: Address, serving: web.AppRunner, limits: Limits) -> None:
    await serving.setup()
    try:
        await Listener(serving, address, limits).start()
    except OSError as error:
        raise SettingsError(f"{setting}: cannot listen on {address}: {os.strerror(error.errno or 0)}") from None


@contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set; a second one changes nothing, not even while the process ends.

    Not by `add_signal_handler`: what takes that one away lets a signal kill for a moment, and any thread may get it.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop_soon(_number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop_soon)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel the task and wait for its end; how it ended is its owner's business."""
    task.cancel()
    await asyncio.wait((task,))
