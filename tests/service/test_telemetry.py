"""Log lines and metrics. Each log record is one line with the caller's fields, in both formats."""

import json
import logging
import math
import sys

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from runtime.log_lines import JsonLines, TextLines
from service.telemetry import HttpMetrics, LeadershipMetrics, new_registry, set_up_logs
from sidecar.client import LeaseClient
from tests.support.outputs import flush_log

pytestmark = pytest.mark.usefixtures("logging_as_it_was")


def test_json_lines_hold_the_fields_and_a_traceback_stays_in_its_line(capfd: pytest.CaptureFixture[str]) -> None:
    set_up_logs("json", "info")
    logger = logging.getLogger("service.some")
    logger.info("leads %s", "now", extra={"lease": "background_services", "token": 7, "instance": "one"})
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logger.exception("failed")
    logger.debug("below the level")
    flush_log()
    first, second = (json.loads(line) for line in capfd.readouterr().out.splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "INFO",
        "logger": "service.some",
        "message": "leads now",
        "lease": "background_services",
        "token": 7,
        "instance": "one",
    }
    assert "ValueError: first\nsecond" in second["exc_info"]


def test_text_lines_end_with_the_fields_that_are_set() -> None:
    record = logging.makeLogRecord(
        {"name": "service.some", "levelname": "INFO", "msg": "leads", "lease": "x", "token": 7, "instance": None}
    )
    record.created, record.msecs = 0.123, 123
    formatter = TextLines()
    assert formatter.format(record) == "1970-01-01T00:00:00.123Z INFO    leads lease=x token=7"


def test_the_time_is_in_utc_in_every_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    record = logging.makeLogRecord({"msg": "x"})
    record.created, record.msecs = 0.0, 0
    assert json.loads(JsonLines().format(record))["time"] == "1970-01-01T00:00:00.000Z"


def test_the_metric_of_a_lease_without_a_term_is_0() -> None:
    registry = CollectorRegistry()
    registry.register(LeadershipMetrics({"some": LeaseClient().leadership("some")}))
    assert registry.get_sample_value("portfolio_leading", {"lease": "some"}) == 0
    assert registry.get_sample_value("portfolio_token", {"lease": "some"}) == 0


def test_the_difference_of_the_clocks_is_not_a_number_before_the_first_comparison() -> None:
    registry = CollectorRegistry()
    HttpMetrics(registry)
    ahead = registry.get_sample_value("portfolio_clock_ahead_seconds")
    assert ahead is not None and math.isnan(ahead)


@pytest.mark.skipif(sys.platform != "linux", reason="these figures come from /proc")
def test_the_metrics_have_memory_and_open_files() -> None:
    metrics = generate_latest(new_registry()).decode()
    assert "process_resident_memory_bytes" in metrics
    assert "process_open_fds" in metrics
