"""What the service tells its operators: log lines and metrics. Nothing here decides anything."""

import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Literal

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError
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

from runtime.log_lines import JsonLines, TextLines
from sidecar.client import Leadership


def set_up_logs(style: Literal["json", "text"], level: str) -> None:
    """Write the process's log to standard output, a line each, in the form that the sidecar uses."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines() if style == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    # What these say in many lines is said in one elsewhere, or is no error of ours.
    logging.getLogger("asyncpg").setLevel(logging.ERROR)
    logging.getLogger("aiohttp.server").addFilter(_is_not_about_malformed_http)


def _is_not_about_malformed_http(record: logging.LogRecord) -> bool:
    """False for a request that was no HTTP: it was answered with 400, and anybody can send any number of them."""
    return record.exc_info is None or not isinstance(record.exc_info[1], (HttpProcessingError, RequestPayloadError))


def new_registry() -> CollectorRegistry:
    """A registry with the figures that every process has: memory, processor time, open files."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no annotation there
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class HttpMetrics:
    """What the HTTP side counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "portfolio_http_requests", "Requests by their answer.", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "portfolio_http_request_seconds", "How long an answer took, streams apart.", ["route"], registry=registry
        )
        self.streams = Gauge("portfolio_stream_clients", "Clients that listen to a stream.", registry=registry)
        self.last_tick = Gauge(
            "portfolio_tracker_last_tick_timestamp_seconds",
            "When new values were last heard of, whoever wrote them.",
            registry=registry,
        )
        self.market_open = Gauge("portfolio_market_open", "1 during a session of the calendar.", registry=registry)
        self.clock_ahead = Gauge(
            "portfolio_clock_ahead_seconds",
            "How far this task's clock is ahead of the database's; negative if it is behind.",
            registry=registry,
        )
        self.database_writable = Gauge(
            "portfolio_database_writable", "1 while the database takes writes, as far as is known.", registry=registry
        )
        self.database_up = Gauge("portfolio_database_up", "1 while the database answers.", registry=registry)


class LeadershipMetrics(Collector):
    """Computed from the clock at each scrape: no gauge outlives the lead that it tells of."""

    def __init__(self, leaderships: Mapping[str, Leadership]) -> None:
        self._leaderships = leaderships

    def collect(self) -> Iterator[Metric]:
        """One sample a lease."""
        leading = GaugeMetricFamily("portfolio_leading", "1 while this process leads the lease.", labels=["lease"])
        remaining = GaugeMetricFamily(
            "portfolio_leading_remaining_seconds", "Until the lead ends unless prolonged.", labels=["lease"]
        )
        token = GaugeMetricFamily("portfolio_token", "The term's fencing token, 0 without a term.", labels=["lease"])
        for name, leadership in self._leaderships.items():
            leading.add_metric([name], float(leadership.is_leader))
            remaining.add_metric([name], leadership.remaining())
            token.add_metric([name], leadership.token or 0)
        yield from (leading, remaining, token)
