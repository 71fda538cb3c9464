"""The condition of the database: whether it accepts writes, and how far its clock differs from this machine's clock."""

import logging
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry, Gauge

from service.database.condition import ClockWatch, Condition
from service.database.store import Store

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def condition(clock_lead: timedelta, took: timedelta = SECOND / 100, **states: bool) -> Condition:
    """The answer of a database whose clock is behind this machine's clock by `clock_lead`."""
    known = {"standby": False, "read_only": False, **states}
    return Condition(**known, clock=NOON + took / 2 - clock_lead, asked_at=NOON, answered_at=NOON + took)


def test_a_clock_difference_within_half_the_query_time_counts_as_zero() -> None:
    for clock_lead in (10 * SECOND, -10 * SECOND):
        assert condition(clock_lead).clock_lead == clock_lead
        assert condition(clock_lead, took=SECOND).clock_lead == clock_lead
    assert condition(SECOND / 2, took=SECOND).clock_lead == timedelta()
    assert condition(10 * SECOND, took=5 * SECOND).clock_lead is None
    assert condition(10 * SECOND, took=-SECOND).clock_lead is None  # this machine's clock was set back during the query


def test_clocks_more_than_two_seconds_apart_are_reported_once_and_show_in_a_metric(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gauge = Gauge("clock_lead", "", registry=CollectorRegistry())
    watch = ClockWatch(gauge)
    with caplog.at_level(logging.INFO):
        for clock_lead in (SECOND, 2 * SECOND, 3 * SECOND, 4 * SECOND, -4 * SECOND):
            watch.compare(clock_lead)
            assert gauge._value.get() == clock_lead.total_seconds()
            assert watch.difference == (clock_lead if abs(clock_lead) > 2 * SECOND else None)
        watch.compare(None)
        assert watch.difference == -4 * SECOND
        watch.compare(timedelta())
        assert not watch.difference
    first, last = (line.getMessage() for line in caplog.records)
    assert "differs from the database's by +3.0 s" in first
    assert "agrees with the database's again" in last


def test_a_standby_and_a_read_only_setting_have_different_reasons() -> None:
    assert condition(SECOND).trouble is None
    assert "standby" in str(condition(SECOND, standby=True, read_only=True).trouble)
    assert "default_transaction_read_only" in str(condition(SECOND, read_only=True).trouble)


async def test_a_database_on_this_machine_has_no_clock_difference(samples_url: str) -> None:
    async with await Store.connect(samples_url, connections=1) as store:
        found = await store.condition()
    assert found.clock_lead is not None and abs(found.clock_lead) < SECOND
    assert found.trouble is None
