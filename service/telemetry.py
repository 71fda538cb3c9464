"""Logs and metrics for operators."""

import logging
import math
from collections.abc import Iterator, Mapping
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from runtime.event_loop import TaskCollector
from runtime.logs import log_to_stdout
from sidecar.client import Leadership


def set_up_logs(form: Literal["json", "text"], level: str) -> None:
    """Write the process's log to standard output, in the sidecar's format."""
    log_to_stdout(form, level)
    logging.captureWarnings(capture=True)
    # asyncpg logs many lines about a fault that the service logs in one line.
    logging.getLogger("asyncpg").setLevel(logging.ERROR)


def new_registry() -> CollectorRegistry:
    """A registry with metrics of the process: memory, processor time, open files, garbage collection, asyncio tasks."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no annotation there
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(TaskCollector())
    return registry


class HttpMetrics:
    """The metrics of HTTP requests, streams, memory and the market, and of the database."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "portfolio_http_requests", "Requests by status.", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "portfolio_http_request_seconds", "Time to answer a request, except streams.", ["route"], registry=registry
        )
        self.streams = Gauge("portfolio_stream_clients", "Clients that read a stream.", registry=registry)
        self.streams_refused = Gauge(
            "portfolio_streams_refused",
            "1 while new streams are refused because memory is short or too many streams are open.",
            registry=registry,
        )
        self.memory_share = Gauge(
            "portfolio_memory_used_share",
            "Used share of the memory limit of the container or the task; 0 without a limit.",
            registry=registry,
        )
        self.last_tick = Gauge(
            "portfolio_tracker_last_tick_timestamp_seconds",
            "Time at which this task last received new values, written by any task.",
            registry=registry,
        )
        self.tracker_interval = Gauge(
            "portfolio_tracker_interval_seconds",
            "Time from one tick to the next: the setting TRACKER_INTERVAL.",
            registry=registry,
        )
        self.market_open = Gauge("portfolio_market_open", "1 during a session of the calendar.", registry=registry)
        self.clock_ahead = Gauge(
            "portfolio_clock_ahead_seconds",
            "How far this task's clock is ahead of the database's; negative if behind; NaN until they are compared.",
            registry=registry,
        )
        self.clock_ahead.set(math.nan)  # 0 would mean that the clocks agree
        self.database_writable = Gauge(
            "portfolio_database_writable",
            "1 while the database accepts writes, as far as is known.",
            registry=registry,
        )
        self.database_up = Gauge("portfolio_database_up", "1 while the database answers.", registry=registry)


class LeadershipMetrics(Collector):
    """Metrics of the leaderships, computed at each scrape, so that no gauge outlives its term."""

    def __init__(self, leaderships: Mapping[str, Leadership]) -> None:
        self._leaderships = leaderships

    def collect(self) -> Iterator[Metric]:
        """One sample per lease."""
        leading = GaugeMetricFamily("portfolio_leading", "1 while this process leads the lease.", labels=["lease"])
        remaining = GaugeMetricFamily(
            "portfolio_leading_remaining_seconds",
            "Seconds until the lead ends unless it is renewed.",
            labels=["lease"],
        )
        token = GaugeMetricFamily("portfolio_token", "The term's fencing token; 0 without a term.", labels=["lease"])
        for name, leadership in self._leaderships.items():
            leading.add_metric([name], float(leadership.is_leader))
            remaining.add_metric([name], leadership.remaining())
            token.add_metric([name], leadership.token or 0)
        yield from (leading, remaining, token)
