"""What a probe learns of the database: whether it takes writes, and how the two clocks differ."""

import logging
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry, Gauge

from service.database.condition import ClockWatch, Condition
from service.database.store import Store

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def condition(ahead: timedelta, took: timedelta = SECOND / 100, **states: bool) -> Condition:
    """The answer of a database whose clock is so far behind ours."""
    known = {"standby": False, "read_only": False, **states}
    return Condition(**known, clock=NOON + took / 2 - ahead, asked_at=NOON, answered_at=NOON + took)


def test_a_difference_between_the_clocks_is_known_but_for_what_the_answer_took() -> None:
    for ahead in (10 * SECOND, -10 * SECOND):
        assert condition(ahead).ahead == ahead
        assert condition(ahead, took=SECOND).ahead == ahead
    assert condition(SECOND / 2, took=SECOND).ahead == timedelta()
    assert condition(10 * SECOND, took=5 * SECOND).ahead is None
    assert condition(10 * SECOND, took=-SECOND).ahead is None  # our clock was set meanwhile


def test_clocks_more_than_two_seconds_apart_are_reported_once_and_show_in_a_metric(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gauge = Gauge("ahead", "", registry=CollectorRegistry())
    watch = ClockWatch(gauge)
    with caplog.at_level(logging.INFO):
        for ahead in (SECOND, 2 * SECOND, 3 * SECOND, 4 * SECOND, -4 * SECOND):
            watch.compare(ahead)
            assert gauge._value.get() == ahead.total_seconds()
        watch.compare(None)
        watch.compare(timedelta())
    first, last = (line.getMessage() for line in caplog.records)
    assert "differs from the database's by +3.0 s" in first
    assert "agrees with the database's again" in last


def test_a_standby_and_a_read_only_setting_are_told_apart() -> None:
    assert condition(SECOND).trouble is None
    assert "standby" in str(condition(SECOND, standby=True, read_only=True).trouble)
    assert "default_transaction_read_only" in str(condition(SECOND, read_only=True).trouble)


async def test_a_database_on_this_machine_has_its_clock(samples_url: str) -> None:
    async with await Store.connect(samples_url, connections=1) as store:
        found = await store.condition()
    assert found.ahead is not None and abs(found.ahead) < SECOND
    assert found.trouble is None
