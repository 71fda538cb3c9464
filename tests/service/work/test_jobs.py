"""The rows of the daily jobs. A run that another worker continues writes the rows of an undisturbed run."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import astuple
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

import asyncpg
import pytest

from service.api import internal_responses
from service.database.connection import Connection, StaleTerm
from service.database.fenced_writes import FencedWrites
from service.database.store import Store
from service.market.calendar import NyseCalendar, Session
from service.portfolio.positions import Block, uuids
from service.portfolio.records import HistoryRow, JobName, Quote
from service.portfolio.valuation import Marks, Values, value_block
from service.prices import PricesUnavailable
from service.work import jobs
from service.work.jobs import Jobs
from service.work.metrics import WorkMetrics
from service.work.timetable import JOBS
from service.work.tracker import Tracker
from tests.service.portfolio.reference import nothing_held, parts
from tests.support.positions import entry, somebody_waits_for_a_lock
from tests.support.waiting import LIMIT
from tests.support.work_fakes import Clock, FakeTerm, FakeTermOver, ScriptedPrices

CALENDAR = NyseCalendar()
FRIDAY, MONDAY, TUESDAY = date(2026, 2, 27), date(2026, 3, 2), date(2026, 3, 3)
CLOSE = datetime(2026, 3, 2, 21, 0, tzinfo=UTC)
NEXT_MORNING = datetime(2026, 3, 3, 9, 0, tzinfo=UTC)


def session(day: date) -> Session:
    found = CALENDAR.session(day)
    assert found is not None
    return found


class JobRunner:
    """The jobs at a given time, with closes by date. For a date without an entry the source fails."""

    def __init__(self, store: Store, closes: dict[date, Mapping[str, str]], now: datetime = CLOSE, **more: Any) -> None:
        self.store = store
        self.closes = closes
        self.clock = Clock(now)
        self.prices = ScriptedPrices(closes=self.answer)
        self.jobs = Jobs(store, self.prices, CALENDAR, now=self.clock.now, **more)

    async def answer(self, day: date) -> Mapping[str, str]:
        if day not in self.closes:
            raise PricesUnavailable(f"no closes for {day}")
        return self.closes[day]


async def rows(store: Store, portfolio: int = 1) -> list[HistoryRow]:
    return await store.history(UUID(int=portfolio))


async def one_row(store: Store, portfolio: int = 1) -> HistoryRow:
    (row,) = await rows(store, portfolio)
    return row


@pytest.fixture
async def term(store: Store) -> FakeTerm:
    await store.claim_fence(FakeTerm())
    return FakeTerm()


async def test_eod_writes_one_row_per_portfolio_at_the_closes(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "2"), entry(2, "A", "1"), entry(2, "B", "3")])
    assert await JobRunner(store, {MONDAY: {"A": "10", "B": "1.5"}}).jobs.run("eod", session(MONDAY), term) == 2
    row = await one_row(store, 2)
    assert (row.date, row.kind, row.value, row.origin, row.revision) == (
        MONDAY,
        "daily_eod",
        Decimal("14.5"),
        "captured",
        1,
    )
    assert (row.priced_fraction, row.stale, row.token) == (Decimal(1), False, 1)
    run = (await store.job_runs())["eod"]
    assert (run.session_date, run.status, run.rows_written, run.token, run.error) == (MONDAY, "done", 2, 1, None)


async def test_a_run_that_is_done_is_not_run_again(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "2")])
    desk = JobRunner(store, {MONDAY: {"A": "10"}})
    await desk.jobs.run("eod", session(MONDAY), term)
    before = await rows(store)
    desk.closes[MONDAY] = {"A": "99"}
    assert await desk.jobs.run("eod", session(MONDAY), term) is None
    assert await rows(store) == before


async def test_each_row_values_the_positions_held_on_its_date(store: Store, term: FakeTerm) -> None:
    await store.put_positions(
        [
            entry(1, "A", "1"),
            entry(1, "A", "2", MONDAY),
            entry(1, "A", "3", TUESDAY),
            entry(1, "B", "1"),
            entry(1, "B", "0", MONDAY),
            entry(2, "A", "1", TUESDAY),
        ]
    )
    desk = JobRunner(store, {FRIDAY: {"A": "10", "B": "1"}, MONDAY: {"A": "10", "B": "1"}})
    for day in (FRIDAY, MONDAY):
        await desk.jobs.run("eod", session(day), term)
    assert [row.value for row in await rows(store)] == [11, 20]
    assert await rows(store, 2) == [], "portfolio 2 had no positions yet"


async def test_a_portfolio_that_has_sold_everything_is_worth_nothing(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(1, "A", "0", MONDAY)])
    await JobRunner(store, {MONDAY: {}}).jobs.run("eod", session(MONDAY), term)
    assert ((await one_row(store)).value, (await one_row(store)).priced_fraction) == (Decimal(0), Decimal(1))


async def test_a_missing_close_is_replaced_by_the_last_known_one_and_stale(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(1, "B", "1")])
    desk = JobRunner(store, {FRIDAY: {"A": "10", "B": "5"}, MONDAY: {"A": "11"}})
    for day in (FRIDAY, MONDAY):
        await desk.jobs.run("eod", session(day), term)
    friday, monday = await rows(store)
    assert (friday.value, friday.stale) == (Decimal(15), False)
    assert (monday.value, monday.stale, monday.priced_fraction) == (Decimal(16), True, Decimal(1))


async def test_a_symbol_without_any_close_lowers_the_priced_fraction_and_a_portfolio_of_only_this_symbol_gets_no_row(
    store: Store, term: FakeTerm
) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(1, "B", "1"), entry(2, "B", "1")])
    await JobRunner(store, {MONDAY: {"A": "10"}}).jobs.run("eod", session(MONDAY), term)
    assert ((await one_row(store)).value, (await one_row(store)).priced_fraction) == (Decimal(10), Decimal("0.5"))
    assert await rows(store, 2) == []


@pytest.mark.parametrize("nonsense", ["0", "-3", "NaN", "sNaN", "Infinity", "0.0000004", "1e9"])
async def test_an_invalid_close_counts_as_missing_and_affects_no_other_row(
    store: Store, term: FakeTerm, nonsense: str
) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(2, "B", "1"), entry(3, "C", "1")])
    desk = JobRunner(store, {FRIDAY: {"A": "10", "B": "5"}, MONDAY: {"A": nonsense, "B": "6", "C": nonsense}})
    for day in (FRIDAY, MONDAY):
        await desk.jobs.run("eod", session(day), term)
    assert [(row.value, row.stale) for row in await rows(store)] == [(Decimal(10), False), (Decimal(10), True)]
    assert [(row.value, row.stale) for row in await rows(store, 2)] == [(Decimal(5), False), (Decimal(6), False)]
    assert await rows(store, 3) == [], "C has never had a price"


async def quote(store: Store, symbol: str, price: str, at: datetime) -> None:
    """Store a price as the tracker does."""
    async with store.fenced(FakeTerm()) as writes:
        await writes.quotes([Quote(symbol, Decimal(price), at, MONDAY, Decimal(price))])


@pytest.mark.parametrize(
    "at",
    [CLOSE, CLOSE - timedelta(minutes=1), session(MONDAY).open, session(FRIDAY).close],
    ids=["at the close", "before the close", "at the opening", "the session before"],
)
async def test_without_a_close_the_row_has_the_last_live_price_and_is_stale(
    store: Store, term: FakeTerm, at: datetime
) -> None:
    await store.put_positions([entry(1, "A", "1")])
    await quote(store, "A", "12", at)
    await JobRunner(store, {MONDAY: {}}).jobs.run("eod", session(MONDAY), term)
    row = await one_row(store)
    assert (row.value, row.stale, row.priced_fraction) == (Decimal(12), True, Decimal(1))
    close = (await store.closes(MONDAY, ["A"]))["A"]
    assert (close.provisional, close.at) == (True, at)


async def test_a_price_made_after_the_close_is_not_used_as_a_close(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1")])
    await quote(store, "A", "12", CLOSE + timedelta(microseconds=1))
    await JobRunner(store, {MONDAY: {}}).jobs.run("eod", session(MONDAY), term)
    assert await rows(store) == []


async def test_the_capture_equals_the_live_value_on_a_day_without_prices(
    store: Store, term: FakeTerm, metrics: WorkMetrics
) -> None:
    await store.put_positions([entry(1, "A", "2")])
    await quote(store, "A", "12.5", session(FRIDAY).close)
    clock = Clock(CLOSE - timedelta(seconds=30))

    async def no_prices() -> Mapping[str, str]:
        return {}

    tracker = Tracker(
        store, ScriptedPrices(no_prices, now=clock.now), CALENDAR, metrics, now=clock.now, sleep=clock.sleep
    )
    with pytest.raises(FakeTermOver):
        await tracker.run(FakeTerm(clock=clock, until=CLOSE))
    await JobRunner(store, {MONDAY: {}}).jobs.run("eod", session(MONDAY), term)
    live, row = await store.live(UUID(int=1)), await one_row(store)
    assert live is not None
    assert (live.value, live.stale) == (row.value, row.stale) == (Decimal(25), True)


@pytest.mark.parametrize("job", ["snapshot", "reconstruction"])
async def test_the_official_close_replaces_the_provisional_one_and_its_row(
    store: Store, raw: Connection, term: FakeTerm, job: JobName
) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(2, "B", "1")])
    await quote(store, "A", "12", CLOSE - timedelta(minutes=1))
    desk = JobRunner(store, {MONDAY: {"B": "5"}}, look_back=1)
    await desk.jobs.run("eod", session(MONDAY), term)
    captured = await one_row(store)
    desk.closes[MONDAY] = {"A": "12", "B": "99"} if job == "reconstruction" else {"A": "12", "B": "5"}
    await desk.jobs.run(job, session(MONDAY), term)
    row, other = await one_row(store, 1), await one_row(store, 2)
    assert (row.value, row.stale, row.origin, row.revision) == (Decimal(12), False, "settled", 2)
    assert (other.value, other.stale) == (Decimal(5), False)
    assert await replaced(raw) == [astuple(captured)], "the replaced row is kept"
    assert not (await store.closes(MONDAY, ["A"]))["A"].provisional


@pytest.mark.parametrize("token", [None, 1], ids=["imported", "official"])
async def test_a_provisional_close_never_replaces_another_close(
    store: Store, raw: Connection, term: FakeTerm, token: int | None
) -> None:
    await store.put_positions([entry(1, "A", "1")])
    await raw.execute(
        "insert into price_eod (symbol, session_date, close, at, token) values ('A', $1, 7, $2, $3)",
        MONDAY,
        session(MONDAY).open,
        token,
    )
    await quote(store, "A", "12", CLOSE - timedelta(minutes=1))
    await JobRunner(store, {MONDAY: {}}, NEXT_MORNING).jobs.run("snapshot", session(MONDAY), term)
    assert ((await one_row(store)).value, (await one_row(store)).stale) == (Decimal(7), False)


async def test_an_official_close_of_the_session_before_is_better_than_an_older_live_price(
    store: Store, term: FakeTerm
) -> None:
    await store.put_positions([entry(1, "A", "1")])
    desk = JobRunner(store, {FRIDAY: {"A": "10"}, MONDAY: {}})
    await desk.jobs.run("eod", session(FRIDAY), term)
    await quote(store, "A", "9", session(FRIDAY).close - timedelta(minutes=1))
    await desk.jobs.run("eod", session(MONDAY), term)
    assert [(row.value, row.stale) for row in await rows(store)] == [(Decimal(10), False), (Decimal(10), True)]


async def test_closes_that_look_like_a_split_are_reported_and_used_unchanged(
    store: Store, term: FakeTerm, caplog: pytest.LogCaptureFixture
) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(1, "B", "1")])
    desk = JobRunner(store, {FRIDAY: {"A": "400", "B": "10"}, MONDAY: {"A": "100", "B": "11"}})
    for day in (FRIDAY, MONDAY):
        await desk.jobs.run("eod", session(day), term)
    assert [row.value for row in await rows(store)] == [410, 111]
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        "1 closes of 2026-03-02 look like a stock split and are used unchanged: A from 400.000000 to 100.000000"
    ]


async def test_the_snapshot_settles_the_row_with_its_next_revision(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(2, "B", "1")])
    desk = JobRunner(store, {MONDAY: {"A": "10", "B": "3"}})
    await desk.jobs.run("eod", session(MONDAY), term)
    desk.closes[MONDAY] = {"A": "10.25", "B": "3"}
    desk.clock.time = NEXT_MORNING
    assert await desk.jobs.run("snapshot", session(MONDAY), term) == 2
    found = [((await one_row(store, n)).value, (await one_row(store, n)).origin) for n in (1, 2)]
    assert found == [(Decimal("10.25"), "settled"), (Decimal(3), "settled")]
    assert [(await one_row(store, n)).revision for n in (1, 2)] == [2, 2]


async def replaced(raw: Connection) -> list[tuple[object, ...]]:
    """The values that later revisions replaced."""
    found = await raw.fetch(
        "select portfolio_id, date, kind, value, priced_fraction, stale, origin, revision, written_at, token "
        "from portfolio_history_revision order by date, portfolio_id, revision"
    )
    return [tuple(row) for row in found]


async def test_a_replaced_row_is_kept_only_if_a_revision_changed_its_value(
    store: Store, raw: Connection, term: FakeTerm
) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(2, "B", "1")])
    desk = JobRunner(store, {MONDAY: {"A": "10", "B": "3"}})
    await desk.jobs.run("eod", session(MONDAY), term)
    captured = await one_row(store)
    desk.closes[MONDAY] = {"A": "10.25", "B": "3"}
    await desk.jobs.run("snapshot", session(MONDAY), term)
    settled = await one_row(store)
    assert await replaced(raw) == [astuple(captured)]
    await desk.jobs.run("snapshot", session(MONDAY), term, rerun=True)
    assert await replaced(raw) == [astuple(captured)]
    desk.closes[MONDAY] = {"A": "11", "B": "3"}
    await desk.jobs.run("snapshot", session(MONDAY), term, rerun=True)
    assert await replaced(raw) == [astuple(captured), astuple(settled)]
    assert (await one_row(store)).revision == 3


async def test_a_run_reports_the_numbers_of_added_and_changed_rows(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(2, "B", "1"), entry(3, "B", "2")])
    desk = JobRunner(store, {MONDAY: {"A": "10", "B": "3"}}, chunk=2)
    await desk.jobs.run("eod", session(MONDAY), term)
    await store.put_positions([entry(4, "A", "1")])
    desk.closes[MONDAY] = {"A": "10.25", "B": "3"}
    await desk.jobs.run("snapshot", session(MONDAY), term)
    counts = {
        job: (run.rows_written, run.rows_added, run.rows_changed) for job, run in (await store.job_runs()).items()
    }
    assert counts == {"eod": (3, 3, 0), "snapshot": (4, 1, 1)}
    shown = internal_responses.JobRun.of((await store.job_runs())["snapshot"])
    assert (shown.rows_added, shown.rows_changed) == (1, 1)


async def test_the_snapshot_writes_a_missing_row_and_reports_it(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1")])
    await JobRunner(store, {MONDAY: {"A": "10"}}, NEXT_MORNING).jobs.run("snapshot", session(MONDAY), term)
    assert ((await one_row(store)).origin, (await one_row(store)).revision) == ("reconstructed", 1)


async def test_a_snapshot_makes_no_revision_of_a_late_row_with_the_same_value(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(2, "B", "1")])
    desk = JobRunner(store, {MONDAY: {"A": "10", "B": "3"}}, NEXT_MORNING)
    await desk.jobs.run("eod", session(MONDAY), term)
    desk.closes[MONDAY] = {"A": "10", "B": "4"}
    assert await desk.jobs.run("snapshot", session(MONDAY), term) == 1
    assert [(await one_row(store, n)).revision for n in (1, 2)] == [1, 2]
    assert [(await one_row(store, n)).origin for n in (1, 2)] == ["reconstructed", "reconstructed"]


@pytest.mark.parametrize("job", ["eod", "reconstruction"])
async def test_only_the_snapshot_changes_an_existing_row_that_is_not_stale(
    store: Store, raw: Connection, term: FakeTerm, job: JobName
) -> None:
    """A row that appears after a job has looked for missing rows is also kept, even if its value would differ now."""
    await store.put_positions([entry(1, "A", "1")])
    await JobRunner(store, {MONDAY: {"A": "10"}}).jobs.run("eod", session(MONDAY), term)
    before = await rows(store)
    await store.put_positions([entry(1, "A", "2", MONDAY)])

    class LateStore(Store):
        async def opened_positions(self, *args: Any, **kwargs: Any) -> Any:
            return await super().opened_positions(*args, **{**kwargs, "without_row": None})

    late = JobRunner(LateStore(store._pool, store._dsn, idle_limit=5, call_limit=5), {}, look_back=1)
    assert await late.jobs.run(job, session(MONDAY), term, rerun=True) == 0
    assert await rows(store) == before
    assert await replaced(raw) == []
    await JobRunner(store, {MONDAY: {}}).jobs.run("snapshot", session(MONDAY), term)
    assert (await one_row(store)).value == 20


async def test_a_chunk_is_written_even_if_one_of_its_rows_exists(store: Store, raw: Connection, term: FakeTerm) -> None:
    await store.put_positions([entry(2, "A", "1")])
    await JobRunner(store, {MONDAY: {"A": "10"}}).jobs.run("eod", session(MONDAY), term)
    await store.put_positions([entry(n, "A", "2") for n in (1, 2, 3)])

    class LateStore(Store):
        async def opened_positions(self, *args: Any, **kwargs: Any) -> Any:
            return await super().opened_positions(*args, **{**kwargs, "without_row": None})

    late = JobRunner(LateStore(store._pool, store._dsn, idle_limit=20, call_limit=20), {})
    assert await late.jobs.run("eod", session(MONDAY), term, rerun=True) == 2
    assert [row.value for n in (1, 2, 3) for row in await rows(store, n)] == [20, 10, 20]
    assert await raw.fetchval("select rows_added from job_run") == 2


async def test_the_rows_of_an_eod_run_are_captured_if_it_is_on_time(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1")])
    desk = JobRunner(store, {FRIDAY: {"A": "10"}, MONDAY: {"A": "10"}}, NEXT_MORNING - timedelta(seconds=1))
    for day in (FRIDAY, MONDAY):
        await desk.jobs.run("eod", session(day), term)
    assert [row.origin for row in await rows(store)] == ["reconstructed", "captured"]


async def test_reconstruction_fills_the_gaps_of_the_look_back_and_changes_no_row(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(2, "A", "2", MONDAY)])
    closes: dict[date, Mapping[str, str]] = {FRIDAY: {"A": "14"}, MONDAY: {"A": "15"}, TUESDAY: {"A": "16"}}
    desk = JobRunner(store, closes, session(FRIDAY).close, look_back=3)
    await desk.jobs.run("eod", session(FRIDAY), term)
    friday = await rows(store)
    desk.closes[FRIDAY] = {"A": "99"}
    desk.clock.time = session(TUESDAY).close
    await desk.jobs.run("reconstruction", session(TUESDAY), term)
    assert [row.date for row in await rows(store)] == [FRIDAY, MONDAY, TUESDAY]
    assert (await rows(store))[:1] == friday
    assert [row.origin for row in await rows(store)] == ["captured", "reconstructed", "reconstructed"]
    assert [(row.date, row.value) for row in await rows(store, 2)] == [(MONDAY, Decimal(30)), (TUESDAY, Decimal(32))]


async def test_a_late_reconstruction_goes_back_no_further_than_the_look_back(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1")])
    closes: dict[date, Mapping[str, str]] = {day: {"A": "1"} for day in (FRIDAY, MONDAY, TUESDAY)}
    desk = JobRunner(store, closes, session(TUESDAY).close, look_back=2)
    await desk.jobs.run("reconstruction", session(MONDAY), term)
    assert [row.date for row in await rows(store)] == [MONDAY]


async def test_reconstruction_requests_only_missing_closes(store: Store, raw: Connection, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(1, "B", "1")])
    await raw.execute("insert into price_eod (symbol, session_date, close, at) values ('A', $1, 7, $2)", MONDAY, CLOSE)
    desk = JobRunner(store, {MONDAY: {"A": "10", "B": "1"}}, look_back=1)
    await desk.jobs.run("reconstruction", session(MONDAY), term)
    assert desk.prices.asked == [{"B"}]
    assert (await one_row(store)).value == 8


async def test_no_source_replaces_an_imported_close(store: Store, raw: Connection, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1")])
    await raw.execute("insert into price_eod (symbol, session_date, close, at) values ('A', $1, 7, $2)", MONDAY, CLOSE)
    await JobRunner(store, {MONDAY: {"A": "10"}}).jobs.run("snapshot", session(MONDAY), term)
    assert (await one_row(store)).value == 7


async def test_a_run_without_an_answer_of_the_source_is_retried(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1")])
    desk = JobRunner(store, {})
    with pytest.raises(PricesUnavailable):
        await desk.jobs.run("eod", session(MONDAY), term)
    assert (await store.job_runs())["eod"].status == "running"
    desk.closes[MONDAY] = {"A": "10"}
    assert await desk.jobs.run("eod", session(MONDAY), term) == 1
    assert (await store.job_runs())["eod"].attempts == 2


async def test_a_session_without_prices_delays_no_later_one_and_is_retried(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1")])
    wednesday = date(2026, 3, 4)
    desk = JobRunner(store, {FRIDAY: {"A": "1"}, TUESDAY: {"A": "3"}}, session(wednesday).close, look_back=4)
    for attempt in (1, 2):
        with pytest.raises(PricesUnavailable, match=r"^2026-03-02: no closes .*; 2026-03-04: no closes"):
            await desk.jobs.run("reconstruction", session(wednesday), term)
        assert [row.date for row in await rows(store)] == [FRIDAY, TUESDAY]
        run = (await store.job_runs())["reconstruction"]
        assert (run.status, run.attempts, run.skipped) == ("running", attempt, [MONDAY, wednesday])
    desk.closes |= {MONDAY: {"A": "2"}, wednesday: {"A": "4"}}
    desk.prices.asked.clear()
    await desk.jobs.run("reconstruction", session(wednesday), term)
    assert [row.date for row in await rows(store)] == [FRIDAY, MONDAY, TUESDAY, wednesday]
    assert [row.value for row in await rows(store)] == [1, 2, 3, 4]
    assert len(desk.prices.asked) == 2, "filled sessions are not requested again"
    run = (await store.job_runs())["reconstruction"]
    assert (run.status, run.skipped, run.rows_written, run.rows_added) == ("done", [], 4, 4)


async def test_an_interrupted_run_remembers_the_sessions_that_it_skipped(
    store: Store, raw: Connection, term: FakeTerm
) -> None:
    await store.put_positions([entry(n, "A", "1") for n in range(1, 4)])
    checks, cut = 0, True
    while cut:
        await raw.execute("truncate portfolio_history, job_run, price_eod")
        desk = JobRunner(store, {MONDAY: {"A": "2"}}, NEXT_MORNING, look_back=2, chunk=2)
        try:
            await desk.jobs.run("reconstruction", session(MONDAY), FakeTerm(checks=checks))
        except FakeTermOver:
            pass
        except PricesUnavailable:
            cut = False
        desk.closes[FRIDAY] = {"A": "1"}
        await desk.jobs.run("reconstruction", session(MONDAY), term)
        found = await raw.fetch("select date, value from portfolio_history order by date, portfolio_id")
        assert [tuple(row) for row in found] == [(FRIDAY, 1)] * 3 + [(MONDAY, 2)] * 3
        checks += 1
    assert checks > 6


async def test_an_eod_without_an_answer_by_the_next_morning_uses_the_last_known_prices(
    store: Store, term: FakeTerm
) -> None:
    await store.put_positions([entry(1, "A", "1")])
    await quote(store, "A", "12", CLOSE - timedelta(minutes=1))
    desk = JobRunner(store, {}, NEXT_MORNING - timedelta(seconds=1))
    with pytest.raises(PricesUnavailable):
        await desk.jobs.run("eod", session(MONDAY), term)
    desk.clock.time = NEXT_MORNING
    with pytest.raises(PricesUnavailable):
        await desk.jobs.run("eod", session(MONDAY), term, stale_prices=False)  # a run by hand raises the error instead
    assert await rows(store) == []
    await desk.jobs.run("eod", session(MONDAY), term)
    row = await one_row(store)
    assert (row.value, row.stale, row.origin) == (Decimal(12), True, "reconstructed")
    desk.closes[MONDAY] = {"A": "11"}
    await desk.jobs.run("snapshot", session(MONDAY), term)
    assert ((await one_row(store)).value, (await one_row(store)).stale) == (Decimal(11), False)


async def test_a_rerun_of_an_eod_without_an_answer_also_uses_the_last_known_prices(
    store: Store, term: FakeTerm
) -> None:
    """The scheduler repeats a finished run if its due time moves to a later time."""
    await store.put_positions([entry(1, "A", "1")])
    desk = JobRunner(store, {MONDAY: {"A": "10"}})
    await desk.jobs.run("eod", session(MONDAY), term)
    await store.put_positions([entry(2, "B", "1")])
    await quote(store, "B", "12", CLOSE - timedelta(minutes=1))
    del desk.closes[MONDAY]
    with pytest.raises(PricesUnavailable):
        await desk.jobs.run("eod", session(MONDAY), term, rerun=True)
    desk.clock.time = NEXT_MORNING
    await desk.jobs.run("eod", session(MONDAY), term, rerun=True)
    row = await one_row(store, 2)
    assert (row.value, row.stale) == (Decimal(12), True)


async def written(raw: Connection) -> list[tuple[object, ...]]:
    """All results of the jobs, without the writers and the times of the writes."""
    history = await raw.fetch(
        "select portfolio_id, date, kind, value, priced_fraction, stale, origin, revision from portfolio_history "
        "order by date, portfolio_id"
    )
    revisions = await raw.fetch(
        "select portfolio_id, date, kind, value, priced_fraction, stale, origin, revision "
        "from portfolio_history_revision order by date, portfolio_id, revision"
    )
    runs = await raw.fetch(
        "select job, session_date, status, cursor_date, cursor_portfolio, rows_written, rows_added, rows_changed, "
        "skipped, error from job_run order by job"
    )
    closes = await raw.fetch(
        "select symbol, session_date, close, at, provisional from price_eod order by session_date, symbol"
    )
    return [tuple(row) for row in (*history, *revisions, *runs, *closes)]


class Disturbed:
    """One job for seven portfolios, in chunks of two, interrupted and continued at any point.

    A reconstruction covers two sessions; each of the other jobs covers one.
    """

    CLOSES: ClassVar[dict[date, Mapping[str, str]]] = {day: {"A": "10", "B": "2"} for day in (FRIDAY, MONDAY)}
    OTHERS: ClassVar[dict[date, Mapping[str, str]]] = {day: {"A": "77", "B": "88"} for day in (FRIDAY, MONDAY)}

    def __init__(self, store: Store, raw: Connection, job: JobName) -> None:
        self.store = store
        self.raw = raw
        self.job = job
        self.token = 0
        self.base = 0
        """Token below every token of the present round."""

    async def start_over(self) -> None:
        await self.store.put_positions(
            [*(entry(n, "A", str(n)) for n in range(1, 8)), *(entry(n, "B", "1") for n in range(3, 6))]
        )
        await self.raw.execute("truncate portfolio_history, portfolio_history_revision, job_run, price_eod")
        if self.job == "snapshot":
            term = await self.newer_term()
            await JobRunner(self.store, {MONDAY: {"A": "9", "B": "2"}}).jobs.run("eod", session(MONDAY), term)
        self.token += 1000 - self.token % 1000
        self.base = self.token

    async def newer_term(self, checks: int | None = None) -> FakeTerm:
        self.token += 1
        term = FakeTerm(self.token, f"holder {self.token}", checks=checks)
        await self.store.claim_fence(term)
        return term

    async def attempt(self, checks: int | None = None) -> bool:
        """Run under a newer term, which ends after `checks` checks, or never if `checks` is None.

        For each session whose closes are already stored, the source now returns other closes. So a run that requests
        these closes again writes other rows.
        """
        priced = await self.store._fetch("select session_date from price_eod where token > $1", self.base)
        closes = self.CLOSES | {row[0]: self.OTHERS[row[0]] for row in priced}
        desk = JobRunner(self.store, closes, NEXT_MORNING, look_back=2, chunk=2)
        try:
            await desk.jobs.run(self.job, session(MONDAY), await self.newer_term(checks))
        except FakeTermOver:
            return False
        return True


@pytest.mark.parametrize("job", JOBS)
async def test_a_run_interrupted_anywhere_is_continued_to_the_same_rows(
    store: Store, raw: Connection, job: JobName
) -> None:
    work = Disturbed(store, raw, job)
    await work.start_over()
    assert await work.attempt()
    expected = await written(raw)
    checks = 0
    while True:
        await work.start_over()
        if await work.attempt(checks):
            break
        assert await work.attempt()
        assert await written(raw) == expected
        checks += 1
    assert checks > 8


async def test_a_chunk_that_is_ready_first_waits_for_the_chunks_before_it(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(n, "A", str(n)) for n in range(1, 8)])
    ahead = asyncio.Event()
    order: list[UUID] = []

    class SlowStore(Store):
        @asynccontextmanager
        async def fenced(self, *args: Any) -> AsyncIterator[FencedWrites]:
            if len(args) == 4:
                turn, (first,) = args[2], uuids(args[1].ids[:1])

                async def in_turn() -> None:
                    if first == UUID(int=1):
                        async with asyncio.timeout(60):
                            await ahead.wait()
                    ahead.set()
                    await turn()
                    order.append(first)

                args = (*args[:2], in_turn, args[3])
            async with super().fenced(*args) as writes:
                yield writes

    slow = SlowStore(store._pool, store._dsn, idle_limit=20, call_limit=20)
    assert await JobRunner(slow, {MONDAY: {"A": "10"}}, chunk=2).jobs.run("eod", session(MONDAY), term) == 7
    assert order == [UUID(int=n) for n in (1, 3, 5, 7)]


@pytest.mark.parametrize("job", JOBS)
async def test_one_connection_is_enough_although_a_later_chunk_is_valued_first(
    migrated: str, store: Store, term: FakeTerm, monkeypatch: pytest.MonkeyPatch, job: JobName
) -> None:
    """A small last chunk is valued sooner than the chunk before it."""
    ahead = threading.Event()

    def value(block: Block, marks: Marks) -> Values:
        if uuids(block.ids)[0] == UUID(int=1):
            assert ahead.wait(60)
        return value_block(block, marks)

    monkeypatch.setattr(jobs, "value_block", value)
    monkeypatch.setattr(jobs, "report_overflow", lambda _: ahead.set())  # from here to the connection, nothing waits
    monkeypatch.setattr("service.database.store.HELPER_LIMIT", 0.1)
    await store.put_positions([entry(n, "A", str(n)) for n in range(1, 4)])
    async with await Store.connect(migrated, connections=1) as narrow, asyncio.timeout(LIMIT):
        desk = JobRunner(narrow, {MONDAY: {"A": "10"}}, look_back=1, chunk=2)
        assert await desk.jobs.run(job, session(MONDAY), term) == 3


@pytest.mark.parametrize("job", JOBS)
async def test_successive_terms_of_one_run_never_interleave_their_writes(
    store: Store, raw: Connection, job: JobName
) -> None:
    work = Disturbed(store, raw, job)
    await work.start_over()
    assert await work.attempt()
    expected = await written(raw)
    await work.start_over()
    checks, rows = 3, 0
    while not await work.attempt(checks):
        before, rows = rows, await raw.fetchval("select count(*) from portfolio_history where token > $1", work.base)
        checks = checks + 1 if rows == before else 3  # so that a term ends soon after it has written a chunk
    assert await written(raw) == expected
    tokens = [row[0] for row in await raw.fetch("select token from portfolio_history order by date, portfolio_id")]
    assert tokens == sorted(tokens)
    assert len(set(tokens)) > 3


async def test_a_crash_within_a_chunk_loses_the_chunk_and_its_cursor_together(
    store: Store, raw: Connection, term: FakeTerm
) -> None:
    await store.put_positions([entry(n, "A", str(n)) for n in range(1, 6)])
    await raw.execute("""
        create function meddle() returns trigger language plpgsql as $$
            begin if new.rows_written = 4 then raise 'no more'; end if; return new; end $$;
        create trigger meddle before update on job_run for each row execute function meddle();
    """)
    desk = JobRunner(store, {MONDAY: {"A": "10"}}, chunk=2)
    with pytest.raises(Exception, match="no more"):
        await desk.jobs.run("eod", session(MONDAY), term)
    assert await raw.fetchval("select count(*) from portfolio_history") == 2
    run = (await store.job_runs())["eod"]
    assert run.cursor is not None
    assert (run.cursor.portfolio_id, run.rows_written) == (UUID(int=2), 2)


async def test_a_worker_writes_nothing_after_a_newer_term_took_the_run(store: Store, raw: Connection) -> None:
    await store.put_positions([entry(n, "A", "1") for n in range(1, 6)])
    await store.claim_fence(FakeTerm())

    class LosingStore(Store):
        def fenced(self, *args: Any) -> Any:
            if len(args) == 4 and uuids(args[1].ids)[0] == UUID(int=3):  # the second chunk
                turn = args[2]

                async def lose() -> None:
                    await turn()
                    await self.claim_fence(FakeTerm(2, "two"))

                args = (*args[:2], lose, args[3])
            return super().fenced(*args)

    losing = LosingStore(store._pool, store._dsn, idle_limit=20, call_limit=20)
    with pytest.raises(StaleTerm):
        await JobRunner(losing, {MONDAY: {"A": "10"}}, chunk=2).jobs.run("eod", session(MONDAY), FakeTerm())
    assert await raw.fetchval("select count(*) from portfolio_history") == 2


@pytest.mark.parametrize("job", JOBS)
async def test_simultaneous_false_leaders_lose_no_row_and_write_none_twice(
    store: Store, raw: Connection, job: JobName
) -> None:
    """Each term believes that it leads and claims the fence at its own time. The last term completes the run."""
    work = Disturbed(store, raw, job)
    await work.start_over()
    assert await work.attempt()
    expected = await written(raw)
    refused, rounds = 0, 0

    async def lead(place: int) -> None:
        nonlocal refused
        await asyncio.sleep(place * 0.02)
        try:
            await work.attempt()
        except StaleTerm:
            refused += 1

    while not refused:  # on a stalled machine the terms may not overlap
        await work.start_over()
        await asyncio.gather(*(lead(place) for place in range(6)))
        assert await written(raw) == expected
        rounds += 1
        assert rounds < 20
    assert refused < 6 * rounds


async def test_history_is_the_newest_rows_within_bounds_oldest_first(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1")])
    days = [s.date for s in CALENDAR.sessions(date(2026, 2, 20), MONDAY)]
    desk = JobRunner(store, {day: {"A": "10"} for day in days}, look_back=len(days))
    await desk.jobs.run("reconstruction", session(MONDAY), term)
    assert [row.date for row in await store.history(UUID(int=1), limit=2)] == days[-2:]
    assert [row.date for row in await store.history(UUID(int=1), days[1], days[3])] == days[1:4]


async def test_the_values_of_a_deleted_portfolio_are_deleted(store: Store, raw: Connection, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(2, "A", "1")])
    desk = JobRunner(store, {MONDAY: {"A": "10"}})
    await desk.jobs.run("eod", session(MONDAY), term)
    desk.closes[MONDAY] = {"A": "11"}
    await desk.jobs.run("snapshot", session(MONDAY), term)
    await raw.execute("delete from portfolio where id = $1", UUID(int=1))
    assert await rows(store, 1) == []
    assert len(await rows(store, 2)) == 1
    assert [row[0] for row in await replaced(raw)] == [UUID(int=2)]


@pytest.fixture(params=["history", "corrected history", "intraday"])
def write_values(request: pytest.FixtureRequest) -> Callable[[FencedWrites], Awaitable[object]]:
    """A function that writes the staged values to the history or to the intraday points."""

    async def history(writes: FencedWrites) -> None:
        await writes.history("daily_eod", MONDAY, origin="captured", overwrite="none")

    async def corrected_history(writes: FencedWrites) -> None:
        await writes.history("daily_eod", MONDAY, origin="captured", overwrite="all")

    async def intraday(writes: FencedWrites) -> None:
        await writes.intraday(MONDAY, CLOSE, UUID(int=1), UUID(int=2))

    return {"history": history, "corrected history": corrected_history, "intraday": intraday}[request.param]


async def with_values(raw: Connection) -> list[UUID]:
    query = "select portfolio_id from portfolio_history union all select portfolio_id from portfolio_intraday"
    return [row[0] for row in await raw.fetch(query)]


async def test_a_portfolio_deleted_while_its_values_are_written_leaves_no_values(
    store: Store,
    raw: Connection,
    term: FakeTerm,
    migrated: str,
    write_values: Callable[[FencedWrites], Awaitable[object]],
) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(2, "A", "1")])
    deleter = await asyncpg.connect(migrated)
    try:
        async with store.fenced(FakeTerm(), nothing_held([UUID(int=1), UUID(int=2)])) as writes:
            await write_values(writes)
            deleting = asyncio.create_task(deleter.execute("delete from portfolio where id = $1", UUID(int=1)))
            await somebody_waits_for_a_lock(raw)
        await deleting
    finally:
        await deleter.close()
    assert await with_values(raw) == [UUID(int=2)]


async def test_values_are_not_written_for_a_portfolio_that_is_being_deleted(
    store: Store,
    raw: Connection,
    term: FakeTerm,
    migrated: str,
    write_values: Callable[[FencedWrites], Awaitable[object]],
) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(2, "A", "1")])
    deleter = await asyncpg.connect(migrated)
    try:
        async with store.fenced(FakeTerm(), nothing_held([UUID(int=1), UUID(int=2)])) as writes:
            async with deleter.transaction():
                await deleter.execute("delete from portfolio where id = $1", UUID(int=1))
                writing = asyncio.ensure_future(write_values(writes))
                await somebody_waits_for_a_lock(raw)
            await writing
    finally:
        await deleter.close()
    assert await with_values(raw) == [UUID(int=2)]


async def test_a_tick_and_a_deletion_do_not_wait_for_each_other(
    store: Store, raw: Connection, term: FakeTerm, migrated: str
) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(2, "A", "1")])
    deleter = await asyncpg.connect(migrated)
    try:
        async with store.fenced(FakeTerm(), nothing_held([UUID(int=1), UUID(int=2)])) as writes:
            await writes.live(MONDAY, CLOSE)
            deleting = asyncio.create_task(deleter.execute("delete from portfolio where id = $1", UUID(int=1)))
            await somebody_waits_for_a_lock(raw)
            await writes.intraday(MONDAY, CLOSE, UUID(int=1), UUID(int=2))
        await deleting
    finally:
        await deleter.close()
    assert await with_values(raw) == [UUID(int=2)]


async def test_a_tick_in_lanes_and_a_deletion_do_not_wait_for_each_other(
    store: Store, raw: Connection, term: FakeTerm, migrated: str
) -> None:
    """The database could not detect a deadlock between them, because one lane waits for the other in this process."""
    one, two = UUID(int=1), UUID(int=2)
    await store.put_positions([entry(1, "A", "1"), entry(2, "A", "1")])
    async with store.fenced(FakeTerm()) as first:
        await first.make_intraday(MONDAY)
    deleter = await asyncpg.connect(migrated)
    try:
        async with store.fenced_lanes(FakeTerm(), [parts(nothing_held([one])), parts(nothing_held([two]))]) as writes:
            await writes[0].block_deletions()
            await writes[1].live(MONDAY, CLOSE)
            await writes[1].intraday(MONDAY, CLOSE, two, two)
            deleting = asyncio.create_task(deleter.execute("delete from portfolio where id = $1", one))
            await somebody_waits_for_a_lock(raw)
            await writes[0].live(MONDAY, CLOSE)
            await writes[0].intraday(MONDAY, CLOSE, one, one)
        await deleting
    finally:
        await deleter.close()
    assert await with_values(raw) == [two]
