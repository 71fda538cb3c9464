"""The API process: its parts, and the order in which they end.

On SIGTERM, /healthz answers 503 and the work stops. As soon as the work has ended, the leases are resigned, so that
another task leads within milliseconds. After that the streams end and the connections drain.
"""

import asyncio
import logging
import os
from datetime import datetime

from aiohttp import web

from runtime.addresses import Address
from runtime.listener import Limits, Listener
from runtime.metric_lines import log_metrics
from runtime.stop_signals import stop_signals
from service.api.auth import guard_from
from service.api.background_status import BackgroundStatus
from service.api.cgroup_memory import CgroupMemory
from service.api.cors import Cors
from service.api.health import Health
from service.api.internal_routes import Internal
from service.api.lease_history import LeaseHistories
from service.api.limits import INTERNAL_LIMITS
from service.api.listener import connection_limits, max_streams, runner
from service.api.middleware import Middleware
from service.api.routes import Api
from service.api.store_access import StoreAccess
from service.api.stream_admission import StreamAdmission
from service.api.streams import Streams
from service.clock import utc_now
from service.database.connection import run_concurrently
from service.database.pool import PoolGroup
from service.database.store import Store
from service.database.write_watch import WriteWatch
from service.market.calendar import CALENDARS
from service.market.overrides import OverriddenCalendar
from service.portfolio.freshness import Freshness
from service.price_source import price_source
from service.prices import PriceSource
from service.settings import Settings, SettingsError
from service.shutdown import exit_after
from service.telemetry import HttpMetrics, LeadershipMetrics, new_registry
from service.work.background import SCHEDULER_LEASE, TRACKER_LEASE, Background
from service.work.load_progress import report_load_progress
from service.work.metrics import WorkMetrics
from service.work.override_reader import OverrideReader
from service.work.protection import protection_by
from service.work.scheduler import Scheduler
from service.work.term import Term
from service.work.tracker import Tracker
from sidecar.client import LeaseClient

CONNECTIONS_SHARE = 0.75
"""Share of SHUTDOWN_TIMEOUT in which the open connections must end. The rest is for the work, which needs
milliseconds."""
INTERNAL_SHUTDOWN = 0.2
"""Seconds in which the internal listener's connections must end; the internal responses are short."""
WORK_CONNECTIONS = 5
"""Database connections of the work: two for a tick or a load, two for a job, one to record the progress of a load.

HTTP has its own connections, so that HTTP and the work do not wait for each other.
"""
LOGGED_METRICS = (
    "portfolio_leading",
    "portfolio_job_runs_waiting",
    "portfolio_job_sessions_given_up",
    "portfolio_database_up",
)
"""Metrics that are also logged, once a minute. CloudWatch's alarms read them from the log (ops/aws)."""

logger = logging.getLogger(__name__)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then end in order within `shutdown_timeout` seconds.

    Raises:
        SettingsError: a setting is missing, or a listener cannot use its address.
    """
    stop = asyncio.Event()
    with stop_signals(lambda _: stop.set()):
        async with LeaseClient(settings.sidecar_url) as client:
            await _Service(settings, client).run(stop)
    logger.info("stopped", extra={"event": "api_stopped"})


class _Service:
    """The parts of the process, wired together."""

    def __init__(self, settings: Settings, client: LeaseClient) -> None:
        self._settings = settings
        self._dsn = settings.database_url.get_secret_value()
        self._pools = PoolGroup()
        self._writes = WriteWatch()
        self._calendar = OverriddenCalendar(CALENDARS[settings.market_calendar]())
        self._overrides = OverrideReader(self._calendar)
        self._prices: PriceSource = price_source(settings, self._calendar, utc_now)
        registry = self._registry = new_registry()
        metrics = HttpMetrics(registry)
        metrics.tracker_interval.set(settings.tracker_interval)
        metrics.market_open.set_function(lambda: self._calendar.current(utc_now()) is not None)
        self._work_metrics = WorkMetrics(registry)
        self._protection = protection_by(settings.ecs_agent_uri, self._work_metrics)
        self._access = StoreAccess(self._connect, metrics, self._writes)
        freshness = Freshness(self._calendar)
        self._streams = Streams(metrics, freshness, utc_now)
        self._admission = StreamAdmission(CgroupMemory.of_process().read, metrics, max_streams())
        self._background = Background(
            client, writes=self._writes, trouble_for=self._access.trouble_for, recovery=self._access.recovery
        )
        registry.register(LeadershipMetrics(self._background.leaderships))
        self._tracker: Tracker | None = None
        leaderships = self._background.leaderships
        status = self._status = BackgroundStatus(
            leaderships,
            client.status,
            self._access,
            self._calendar,
            self._last_tick,
            self._next_tick,
            settings.tracker_interval,
            price_watch=lambda: self._tracker.price_watch if self._tracker is not None else None,
        )
        self._histories = LeaseHistories(leaderships)
        self._guard = guard_from(settings)
        self._health = Health(lambda: self._access.trouble, status.sidecar, lambda: self._admission.memory)
        cors = Cors(settings.cors_origins)
        api = Api(self._access, self._streams, self._admission, self._health, metrics, self._guard, freshness, cors)
        internal = Internal(status, self._histories, self._health, registry, Middleware(metrics, self._access))
        self._runner = runner(api.application(), shutdown_timeout=settings.shutdown_timeout * CONNECTIONS_SHARE)
        self._internal_runner = runner(internal.application(), shutdown_timeout=INTERNAL_SHUTDOWN)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve from the start of the listeners to the end of the last connection."""
        work_store = await Store.connect(
            self._dsn, connections=WORK_CONNECTIONS, at_once=False, group=self._pools, writes=self._writes
        )
        try:
            await self._listen()
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read(), name="reading")
                watching_memory = tasks.create_task(self._admission.run(), name="watching memory")
                protecting = tasks.create_task(self._protection.run(), name="protecting")
                working = tasks.create_task(self._work(work_store), name="working")
                logging_metrics = tasks.create_task(log_metrics(self._registry, LOGGED_METRICS), name="logging metrics")
                await stop.wait()
                logger.info("stopping: the work first, then the connections", extra={"event": "api_stopping"})
                self._limit_shutdown(working)
                self._health.draining = True
                await _end(working)
                logger.info("the work has stopped and its leases are resigned")
                self._streams.close()
                await self._runner.cleanup()
                await _end(reading)
                await _end(protecting)
                await _end(logging_metrics)
                await _end(watching_memory)
        finally:
            await self._runner.cleanup()
            await self._internal_runner.cleanup()
            await self._status.close()
            await self._histories.close()
            await self._access.close()
            await work_store.close()
            await self._prices.aclose()
            await self._guard.aclose()

    def _limit_shutdown(self, working: asyncio.Task[None]) -> None:
        """End the process after SHUTDOWN_TIMEOUT, with status 0 if the work has ended and its leases are resigned."""

        def report() -> None:
            unfinished = "connections" if working.done() else "the work"
            logger.critical("SHUTDOWN_TIMEOUT is over; exiting, although %s did not end", unfinished)

        exit_after(self._settings.shutdown_timeout, lambda: 0 if working.done() else 1, report)

    async def _connect(self) -> Store:
        return await Store.connect(self._dsn, group=self._pools, writes=self._writes)

    async def _listen(self) -> None:
        settings = self._settings
        # The internal listener starts first, so that every task that passes its health check can be scraped.
        await _start("INTERNAL_BIND", settings.internal_bind, self._internal_runner, INTERNAL_LIMITS)
        await _start("API_BIND", settings.api_bind, self._runner, connection_limits())
        binds = settings.api_bind, settings.internal_bind
        logger.info("listening on http://%s, and for operators on http://%s", *binds, extra={"event": "api_started"})
        if self._settings.auth == "off":
            logger.warning("AUTH=off: everybody who reaches this API may read and change every portfolio")
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
        await self._overrides.loaded.wait()
        parts = store, self._prices, self._calendar, self._work_metrics
        tracker = self._tracker = Tracker(*parts, interval=self._settings.tracker_interval)
        scheduler = Scheduler(*parts, protection=self._protection)

        async def track(term: Term) -> None:
            await run_concurrently((tracker.run(term), report_load_progress(store, term, lambda: tracker.loading)))

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


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel the task and wait for its end. The task group handles its result."""
    task.cancel()
    await asyncio.wait((task,))
