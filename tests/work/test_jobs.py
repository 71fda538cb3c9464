"""What the daily jobs write, and that a run taken over writes the same."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

import pytest

from service.database import Connection, StaleTerm
from service.jobs import Jobs
from service.market import NyseCalendar, Session
from service.prices import PricesUnavailable
from service.records import HistoryRow, JobName, Quote
from service.store import Store
from service.timetable import JOBS
from service.writes import FencedWrites
from tests.work.conftest import Clock, FakeTerm, Over, ScriptedPrices, entry

CALENDAR = NyseCalendar()
FRIDAY, MONDAY, TUESDAY = date(2026, 2, 27), date(2026, 3, 2), date(2026, 3, 3)
CLOSE = datetime(2026, 3, 2, 21, 0, tzinfo=UTC)
NEXT_MORNING = datetime(2026, 3, 3, 9, 0, tzinfo=UTC)


def session(day: date) -> Session:
    found = CALENDAR.session(day)
    assert found is not None
    return found


class Desk:
    """The jobs at a time, with closes by date; a date without an entry is one that the source cannot answer for."""

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
    await store.take_up("lease", 1, "one")
    return FakeTerm()


async def test_eod_writes_one_row_a_portfolio_at_the_closes(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "2"), entry(2, "A", "1"), entry(2, "B", "3")])
    assert await Desk(store, {MONDAY: {"A": "10", "B": "1.5"}}).jobs.run("eod", session(MONDAY), term) == 2
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
    desk = Desk(store, {MONDAY: {"A": "10"}})
    await desk.jobs.run("eod", session(MONDAY), term)
    before = await rows(store)
    desk.closes[MONDAY] = {"A": "99"}
    assert await desk.jobs.run("eod", session(MONDAY), term) is None
    assert await rows(store) == before


async def test_values_are_those_of_the_positions_held_on_that_date(store: Store, term: FakeTerm) -> None:
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
    desk = Desk(store, {FRIDAY: {"A": "10", "B": "1"}, MONDAY: {"A": "10", "B": "1"}})
    for day in (FRIDAY, MONDAY):
        await desk.jobs.run("eod", session(day), term)
    assert [row.value for row in await rows(store)] == [11, 20]
    assert await rows(store, 2) == [], "it had no positions yet"


async def test_a_portfolio_that_has_sold_everything_is_worth_nothing(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(1, "A", "0", MONDAY)])
    await Desk(store, {MONDAY: {}}).jobs.run("eod", session(MONDAY), term)
    assert ((await one_row(store)).value, (await one_row(store)).priced_fraction) == (Decimal(0), Decimal(1))


async def test_a_missing_close_is_the_last_one_known_and_marked_stale(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(1, "B", "1")])
    desk = Desk(store, {FRIDAY: {"A": "10", "B": "5"}, MONDAY: {"A": "11"}})
    for day in (FRIDAY, MONDAY):
        await desk.jobs.run("eod", session(day), term)
    friday, monday = await rows(store)
    assert (friday.value, friday.stale) == (Decimal(15), False)
    assert (monday.value, monday.stale, monday.priced_fraction) == (Decimal(16), True, Decimal(1))


async def test_a_symbol_without_any_close_lowers_the_priced_fraction_and_alone_makes_no_row(
    store: Store, term: FakeTerm
) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(1, "B", "1"), entry(2, "B", "1")])
    await Desk(store, {MONDAY: {"A": "10"}}).jobs.run("eod", session(MONDAY), term)
    assert ((await one_row(store)).value, (await one_row(store)).priced_fraction) == (Decimal(10), Decimal("0.5"))
    assert await rows(store, 2) == []


async def test_where_the_source_has_no_close_the_sessions_last_live_price_stands_in(
    store: Store, term: FakeTerm
) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(2, "B", "1")])
    minute = timedelta(minutes=1)
    async with store.fenced("lease", 1, "one") as writes:
        await writes.quotes(
            [
                Quote("A", Decimal(12), CLOSE - minute, MONDAY, Decimal(11)),
                Quote(
                    "B", Decimal(7), session(FRIDAY).close, MONDAY, Decimal(7)
                ),  # quoted on Monday, but Friday's price
            ]
        )
    await Desk(store, {MONDAY: {}}).jobs.run("eod", session(MONDAY), term)
    assert ((await one_row(store)).value, (await one_row(store)).stale) == (Decimal(12), False)
    assert await rows(store, 2) == []


async def test_the_snapshot_settles_the_row_with_its_next_revision(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(2, "B", "1")])
    desk = Desk(store, {MONDAY: {"A": "10", "B": "3"}})
    await desk.jobs.run("eod", session(MONDAY), term)
    desk.closes[MONDAY] = {"A": "10.25", "B": "3"}
    desk.clock.time = NEXT_MORNING
    assert await desk.jobs.run("snapshot", session(MONDAY), term) == 2
    found = [((await one_row(store, n)).value, (await one_row(store, n)).origin) for n in (1, 2)]
    assert found == [(Decimal("10.25"), "settled"), (Decimal(3), "settled")]
    assert [(await one_row(store, n)).revision for n in (1, 2)] == [2, 2]


async def test_the_snapshot_writes_the_row_that_is_missing_and_says_so(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1")])
    await Desk(store, {MONDAY: {"A": "10"}}, NEXT_MORNING).jobs.run("snapshot", session(MONDAY), term)
    assert ((await one_row(store)).origin, (await one_row(store)).revision) == ("reconstructed", 1)


async def test_a_snapshot_that_changes_nothing_of_a_late_row_is_no_revision(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(2, "B", "1")])
    desk = Desk(store, {MONDAY: {"A": "10", "B": "3"}}, NEXT_MORNING)
    await desk.jobs.run("eod", session(MONDAY), term)
    desk.closes[MONDAY] = {"A": "10", "B": "4"}
    assert await desk.jobs.run("snapshot", session(MONDAY), term) == 1
    assert [(await one_row(store, n)).revision for n in (1, 2)] == [1, 2]
    assert [(await one_row(store, n)).origin for n in (1, 2)] == ["reconstructed", "reconstructed"]


async def test_a_row_that_is_there_is_changed_by_the_snapshot_alone(store: Store, term: FakeTerm) -> None:
    """Even one that came to be after a job looked for what is missing."""
    await store.put_positions([entry(1, "A", "1")])
    await Desk(store, {MONDAY: {"A": "10"}}).jobs.run("eod", session(MONDAY), term)
    before = await rows(store)

    class LateStore(Store):
        async def opened_positions(self, *args: Any, **kwargs: Any) -> Any:
            return await super().opened_positions(*args, **{**kwargs, "without_row": None})

    late = Desk(LateStore(store._pool, store._dsn, idle_limit=5, call_limit=5), {}, look_back=1)
    assert await late.jobs.run("reconstruction", session(MONDAY), term) == 0
    assert await rows(store) == before


async def test_an_eod_run_on_time_says_captured_and_a_late_one_does_not(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1")])
    desk = Desk(store, {FRIDAY: {"A": "10"}, MONDAY: {"A": "10"}}, NEXT_MORNING - timedelta(seconds=1))
    for day in (FRIDAY, MONDAY):
        await desk.jobs.run("eod", session(day), term)
    assert [row.origin for row in await rows(store)] == ["reconstructed", "captured"]


async def test_reconstruction_fills_the_gaps_of_the_look_back_and_changes_nothing_else(
    store: Store, term: FakeTerm
) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(2, "A", "2", MONDAY)])
    closes: dict[date, Mapping[str, str]] = {FRIDAY: {"A": "14"}, MONDAY: {"A": "15"}, TUESDAY: {"A": "16"}}
    desk = Desk(store, closes, session(FRIDAY).close, look_back=3)
    await desk.jobs.run("eod", session(FRIDAY), term)
    friday = await rows(store)
    desk.closes[FRIDAY] = {"A": "99"}
    desk.clock.time = session(TUESDAY).close
    await desk.jobs.run("reconstruction", session(TUESDAY), term)
    assert [row.date for row in await rows(store)] == [FRIDAY, MONDAY, TUESDAY]
    assert (await rows(store))[:1] == friday
    assert [row.origin for row in await rows(store)] == ["captured", "reconstructed", "reconstructed"]
    assert [(row.date, row.value) for row in await rows(store, 2)] == [(MONDAY, Decimal(30)), (TUESDAY, Decimal(32))]


async def test_reconstruction_that_is_caught_up_reaches_no_further_back_than_the_look_back(
    store: Store, term: FakeTerm
) -> None:
    await store.put_positions([entry(1, "A", "1")])
    closes: dict[date, Mapping[str, str]] = {day: {"A": "1"} for day in (FRIDAY, MONDAY, TUESDAY)}
    desk = Desk(store, closes, session(TUESDAY).close, look_back=2)
    await desk.jobs.run("reconstruction", session(MONDAY), term)
    assert [row.date for row in await rows(store)] == [MONDAY]


async def test_reconstruction_asks_only_for_closes_that_are_missing(
    store: Store, raw: Connection, term: FakeTerm
) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(1, "B", "1")])
    await raw.execute("insert into price_eod (symbol, session_date, close, at) values ('A', $1, 7, $2)", MONDAY, CLOSE)
    desk = Desk(store, {MONDAY: {"A": "10", "B": "1"}}, look_back=1)
    await desk.jobs.run("reconstruction", session(MONDAY), term)
    assert desk.prices.asked == [{"B"}]
    assert (await one_row(store)).value == 8


async def test_an_imported_close_is_replaced_by_no_source(store: Store, raw: Connection, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1")])
    await raw.execute("insert into price_eod (symbol, session_date, close, at) values ('A', $1, 7, $2)", MONDAY, CLOSE)
    await Desk(store, {MONDAY: {"A": "10"}}).jobs.run("snapshot", session(MONDAY), term)
    assert (await one_row(store)).value == 7


async def test_a_source_without_an_answer_leaves_the_run_to_be_tried_again(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1")])
    desk = Desk(store, {})
    with pytest.raises(PricesUnavailable):
        await desk.jobs.run("eod", session(MONDAY), term)
    assert (await store.job_runs())["eod"].status == "running"
    desk.closes[MONDAY] = {"A": "10"}
    assert await desk.jobs.run("eod", session(MONDAY), term) == 1
    assert (await store.job_runs())["eod"].attempts == 2


async def written(raw: Connection) -> list[tuple[object, ...]]:
    """Everything that the jobs left, without who wrote it and when."""
    history = await raw.fetch(
        "select portfolio_id, date, kind, value, priced_fraction, stale, origin, revision from portfolio_history "
        "order by date, portfolio_id"
    )
    runs = await raw.fetch(
        "select job, session_date, status, cursor_date, cursor_portfolio, rows_written, error from job_run order by job"
    )
    return [tuple(row) for row in (*history, *runs)]


class Disturbed:
    """One job over two sessions and seven portfolios, two a chunk, started over and cut short at will."""

    CLOSES: ClassVar[dict[date, Mapping[str, str]]] = {day: {"A": "10", "B": "2"} for day in (FRIDAY, MONDAY)}
    OTHERS: ClassVar[dict[date, Mapping[str, str]]] = {day: {"A": "77", "B": "88"} for day in (FRIDAY, MONDAY)}

    def __init__(self, store: Store, raw: Connection, job: JobName) -> None:
        self.store = store
        self.raw = raw
        self.job = job
        self.token = 0
        self.base = 0
        """No token since the start is as low."""

    async def start_over(self) -> None:
        await self.store.put_positions(
            [*(entry(n, "A", str(n)) for n in range(1, 8)), *(entry(n, "B", "1") for n in range(3, 6))]
        )
        await self.raw.execute("truncate portfolio_history, job_run, price_eod")
        if self.job == "snapshot":
            term = await self.newer_term()
            await Desk(self.store, {MONDAY: {"A": "9", "B": "2"}}).jobs.run("eod", session(MONDAY), term)
        self.token += 1000 - self.token % 1000
        self.base = self.token

    async def newer_term(self, checks: int | None = None) -> FakeTerm:
        self.token += 1
        await self.store.take_up("lease", self.token, f"holder {self.token}")
        return FakeTerm(self.token, f"holder {self.token}", checks=checks)

    async def attempt(self, checks: int | None = None) -> bool:
        """Run under a newer term that ends at a check, with other prices on offer where some are in already."""
        priced = await self.raw.fetch("select session_date from price_eod where token > $1", self.base)
        closes = self.CLOSES | {row[0]: self.OTHERS[row[0]] for row in priced}
        desk = Desk(self.store, closes, NEXT_MORNING, look_back=2, chunk=2)
        try:
            await desk.jobs.run(self.job, session(MONDAY), await self.newer_term(checks))
        except Over:
            return False
        return True


@pytest.mark.parametrize("job", JOBS)
async def test_a_run_cut_short_anywhere_is_carried_on_to_the_same_rows(
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


@pytest.mark.parametrize("job", JOBS)
async def test_terms_that_follow_each_other_in_one_run_never_write_in_turns(
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
    desk = Desk(store, {MONDAY: {"A": "10"}}, chunk=2)
    with pytest.raises(Exception, match="no more"):
        await desk.jobs.run("eod", session(MONDAY), term)
    assert await raw.fetchval("select count(*) from portfolio_history") == 2
    run = (await store.job_runs())["eod"]
    assert run.cursor is not None
    assert (run.cursor.portfolio_id, run.rows_written) == (UUID(int=2), 2)


async def test_a_worker_that_lost_the_run_to_a_newer_term_writes_no_more(store: Store, raw: Connection) -> None:
    await store.put_positions([entry(n, "A", "1") for n in range(1, 6)])
    await store.take_up("lease", 1, "one")

    class LosingStore(Store):
        writes = 0

        def fenced(self, *args: Any) -> Any:
            self.writes += 1
            return self.late(*args) if self.writes == 4 else super().fenced(*args)

        @asynccontextmanager
        async def late(self, *args: Any) -> AsyncIterator[FencedWrites]:
            await self.take_up("lease", 2, "two")
            async with super().fenced(*args) as writes:
                yield writes

    losing = LosingStore(store._pool, store._dsn, idle_limit=5, call_limit=5)
    with pytest.raises(StaleTerm):
        await Desk(losing, {MONDAY: {"A": "10"}}, chunk=2).jobs.run("eod", session(MONDAY), FakeTerm())
    assert await raw.fetchval("select count(*) from portfolio_history") == 2


@pytest.mark.parametrize("job", JOBS)
async def test_leaders_by_force_at_the_same_time_lose_no_row_and_write_none_twice(
    store: Store, raw: Connection, job: JobName
) -> None:
    """Each believes that it leads, and takes up at a moment of its own; the last one ends the run."""
    work = Disturbed(store, raw, job)
    await work.start_over()
    assert await work.attempt()
    expected = await written(raw)
    await work.start_over()
    refused = 0

    async def lead(place: int) -> None:
        nonlocal refused
        await asyncio.sleep(place * 0.02)
        try:
            await work.attempt()
        except StaleTerm:
            refused += 1

    await asyncio.gather(*(lead(place) for place in range(6)))
    assert await written(raw) == expected
    assert 0 < refused < 6


async def test_history_is_given_newest_within_bounds_oldest_first(store: Store, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1")])
    days = [s.date for s in CALENDAR.sessions(date(2026, 2, 20), MONDAY)]
    desk = Desk(store, {day: {"A": "10"} for day in days}, look_back=len(days))
    await desk.jobs.run("reconstruction", session(MONDAY), term)
    assert [row.date for row in await store.history(UUID(int=1), limit=2)] == days[-2:]
    assert [row.date for row in await store.history(UUID(int=1), days[1], days[3])] == days[1:4]


async def test_a_deleted_portfolio_takes_its_values_along(store: Store, raw: Connection, term: FakeTerm) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(2, "A", "1")])
    await Desk(store, {MONDAY: {"A": "10"}}).jobs.run("eod", session(MONDAY), term)
    await raw.execute("delete from portfolio where id = $1", UUID(int=1))
    assert await rows(store, 1) == []
    assert len(await rows(store, 2)) == 1
