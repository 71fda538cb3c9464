"""Overrides of the calendar (closures and other hours): how the table is read, and their effect on the work."""

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Never

import pytest

from service.database.connection import Connection, StoreError
from service.database.store import Store
from service.market.calendar import AroundTheClockCalendar, NyseCalendar
from service.market.overrides import MarketOverride, OverriddenCalendar
from service.work.metrics import WorkMetrics
from service.work.override_reader import OverrideReader
from service.work.scheduler import Scheduler
from tests.support.positions import entry
from tests.support.work_fakes import Clock, FakeTerm, FakeTermOver, ScriptedPrices

FRIDAY, MONDAY, TUESDAY = date(2026, 2, 27), date(2026, 3, 2), date(2026, 3, 3)
ONE, CLOSE = datetime(2026, 3, 2, 18, 0, tzinfo=UTC), datetime(2026, 3, 2, 21, 0, tzinfo=UTC)
OPEN = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)


async def override(raw: Connection, day: date, opens: datetime | None, closes: datetime | None) -> None:
    await raw.execute(
        """
        insert into market_override (calendar, session_date, opens_at, closes_at, reason)
        values ('NYSE', $1, $2, $3, 'mourning')
        on conflict (calendar, session_date) do update set opens_at = $2, closes_at = $3
        """,
        day,
        opens,
        closes,
    )


async def read(store: Store) -> OverriddenCalendar:
    calendar = OverriddenCalendar(NyseCalendar())
    await OverrideReader(calendar).read(store)
    return calendar


async def test_an_override_closes_a_day_or_changes_its_hours_and_no_other_day(store: Store, raw: Connection) -> None:
    saturday = date(2026, 2, 28)
    await override(raw, FRIDAY, None, None)
    await override(raw, MONDAY, OPEN, ONE)
    await override(raw, saturday, OPEN - timedelta(days=2), ONE - timedelta(days=2))
    calendar, plain = await read(store), NyseCalendar()
    assert calendar.session(FRIDAY) is None
    assert calendar.session(TUESDAY) == plain.session(TUESDAY)
    monday, special = calendar.session(MONDAY), calendar.session(saturday)
    assert monday is not None and (monday.open, monday.close) == (OPEN, ONE)
    assert special is not None and calendar.next_open(special.close) == monday
    assert calendar.current(ONE) is None
    assert calendar.last_closed(ONE).date == MONDAY
    assert calendar.last_closed(OPEN - timedelta(days=2)).date == date(2026, 2, 26)


@pytest.mark.parametrize(
    ("opens", "closes"),
    [
        (OPEN + timedelta(days=1), ONE + timedelta(days=1)),
        (OPEN, ONE + timedelta(days=1)),
        (OPEN - timedelta(hours=10), ONE),
        (datetime.min.replace(tzinfo=UTC), ONE),
        (OPEN, datetime.max.replace(tzinfo=UTC)),
    ],
)
async def test_an_override_with_hours_of_another_day_closes_the_day_and_is_logged_once(
    opens: datetime, closes: datetime, caplog: pytest.LogCaptureFixture
) -> None:
    calendar = OverriddenCalendar(NyseCalendar())
    for _ in range(2):
        calendar.override({MONDAY: MarketOverride(MONDAY, opens, closes, "a slip of the pen")})
    assert calendar.session(MONDAY) is None
    assert calendar.last_closed(CLOSE).date == FRIDAY
    (record,) = caplog.records
    assert (record.levelno, "2026-03-02" in record.getMessage()) == (logging.ERROR, True)


@pytest.mark.parametrize("opens", [None, OPEN, OPEN - timedelta(days=1)])
def test_a_long_reason_of_an_override_is_cut_in_the_log(
    opens: datetime | None, caplog: pytest.LogCaptureFixture
) -> None:
    closes = None if opens is None else ONE
    OverriddenCalendar(NyseCalendar()).override({MONDAY: MarketOverride(MONDAY, opens, closes, "long\n" * 100_000)})
    (record,) = caplog.records
    assert "long" in record.getMessage()
    assert len(record.getMessage()) < 400
    assert "\n" not in record.getMessage()


async def test_a_long_name_of_an_unknown_calendar_is_cut_in_the_log(
    store: Store, raw: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    name = "long" * 600  # an index limits the name to about 2700 bytes
    await raw.execute("insert into market_override values ($1, $2, null, null, 'mourning')", name, MONDAY)
    await OverrideReader(OverriddenCalendar(NyseCalendar())).read(store)
    (record,) = caplog.records
    assert len(record.getMessage()) < 400


@pytest.mark.parametrize(
    ("day", "opens", "closes"),
    [
        ("infinity", "-infinity", "infinity"),
        ("20260-03-02", None, None),  # a year with one digit too many
        ("0044-03-15 BC", None, None),
        ("2026-03-02", "2026-03-02 14:30Z", "20260-03-02 18:00Z"),
        ("2026-03-02", "0044-03-15 14:30Z BC", "2026-03-02 18:00Z"),
    ],
)
async def test_an_override_that_python_cannot_represent_does_not_break_the_calendar(
    store: Store, raw: Connection, day: str, opens: str | None, closes: str | None
) -> None:
    """An error would end the reader and the service in every task at once."""
    await override(raw, FRIDAY, None, None)
    await raw.execute(
        """
        insert into market_override (calendar, session_date, opens_at, closes_at, reason)
        values ('NYSE', $1::text::date, $2::text::timestamptz, $3::text::timestamptz, 'a slip of the pen')
        """,
        day,
        opens,
        closes,
    )
    calendar = await read(store)
    assert calendar.session(FRIDAY) is None
    assert calendar.session(TUESDAY) == NyseCalendar().session(TUESDAY)
    assert (calendar.session(MONDAY) is None) == (day == "2026-03-02")


async def test_overrides_of_an_unknown_calendar_are_reported_once(
    store: Store, raw: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("NYSE", "24/7", "nyse"):
        await raw.execute("insert into market_override values ($1, $2, null, null, 'mourning')", name, MONDAY)
    reader = OverrideReader(OverriddenCalendar(NyseCalendar()))
    for _ in range(2):
        await reader.read(store)
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == [
        "market_override: the calendar 'nyse' is unknown and its days have no effect; "
        "the known calendars are NYSE, 24/7"
    ]


async def test_overrides_of_another_calendar_have_no_effect(store: Store, raw: Connection) -> None:
    await override(raw, MONDAY, None, None)
    calendar = OverriddenCalendar(AroundTheClockCalendar())
    await OverrideReader(calendar).read(store)
    assert calendar.session(MONDAY) == AroundTheClockCalendar().session(MONDAY)


async def test_overrides_take_effect_at_the_next_read_and_survive_an_outage(
    store: Store, raw: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    calendar = OverriddenCalendar(NyseCalendar())
    looks: list[bool] = []
    readings = store.market_overrides

    async def next_look(_: float) -> None:
        looks.append(calendar.session(MONDAY) is None)
        match len(looks):
            case 1:
                await override(raw, MONDAY, None, None)
            case 2:
                monkeypatch.setattr(store, "market_overrides", fail)
            case 3:
                monkeypatch.setattr(store, "market_overrides", readings)
                await raw.execute("delete from market_override")
            case 4:
                raise asyncio.CancelledError

    async def fail(_: str) -> Mapping[date, MarketOverride]:
        raise StoreError("database: away")

    reader = OverrideReader(calendar, next_look)
    with pytest.raises(asyncio.CancelledError):
        await reader.run(store)
    assert looks == [False, True, True, False]
    assert reader.loaded.is_set()


async def test_the_capture_moves_to_a_close_that_is_changed_during_the_session(
    store: Store, raw: Connection, metrics: WorkMetrics
) -> None:
    await store.put_positions([entry(1, "A", "2")])
    calendar = await read(store)
    clock = Clock(datetime(2026, 3, 2, 17, 0, 30, tzinfo=UTC))
    asked: list[tuple[date, datetime]] = []

    async def closes(day: date) -> Mapping[str, str]:
        asked.append((day, clock.time))
        return {"A": "10"}

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        if clock.time > ONE - timedelta(minutes=30):
            await override(raw, MONDAY, OPEN, ONE)
            await OverrideReader(calendar).read(store)

    scheduler = Scheduler(
        store, ScriptedPrices(closes=closes), calendar, metrics, look_back=1, now=clock.now, sleep=sleep
    )
    with pytest.raises(FakeTermOver):
        await scheduler.run(FakeTerm(clock=clock, until=CLOSE + timedelta(hours=1)))
    assert [at for day, at in asked if day == MONDAY] == [ONE]


async def test_a_close_that_is_moved_to_before_the_leaders_last_look_is_captured_at_once(
    store: Store, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session broke off at 18:00 UTC, the lead changed at 18:30, and the operator inserts the override at 19:00.

    At that moment the leader cannot read the records of the runs, so it notices the close by the timetable alone.
    """
    await store.put_positions([entry(1, "A", "2")])
    calendar, clock = OverriddenCalendar(NyseCalendar()), Clock(ONE + timedelta(minutes=30))
    inserted = ONE + timedelta(hours=1)
    asked: list[datetime] = []

    async def closes(day: date) -> Mapping[str, str]:
        if day == MONDAY:
            asked.append(clock.time)
        return {"A": "10"}

    async def fail_once(_: date) -> Never:
        monkeypatch.undo()
        raise StoreError("database: away")

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        if clock.time == inserted:
            calendar.override({MONDAY: MarketOverride(MONDAY, OPEN, ONE, "breakdown")})
            monkeypatch.setattr(store, "runs", fail_once)

    prices = ScriptedPrices(closes=closes)
    scheduler = Scheduler(store, prices, calendar, metrics, look_back=1, now=clock.now, sleep=sleep)
    with pytest.raises(FakeTermOver):
        await scheduler.run(FakeTerm(clock=clock, until=CLOSE + timedelta(hours=1)))
    assert asked == [inserted]
