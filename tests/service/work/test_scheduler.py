"""The scheduler through several days, on a clock that moves only during sleeps and while the source answers."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Never
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from service.database import connection as connecting
from service.database import write_watch
from service.database.connection import Connection, StaleTerm, StoreError
from service.database.store import Store
from service.market.calendar import AroundTheClockCalendar, Calendar, NyseCalendar
from service.prices import PricesUnavailable
from service.work.jobs import Jobs
from service.work.metrics import WorkMetrics
from service.work.scheduler import Scheduler
from service.work.timetable import due_at
from tests.support.positions import entry
from tests.support.proxy import Proxy
from tests.support.waiting import LIMIT
from tests.support.work_fakes import Clock, FakeTerm, FakeTermOver, ScriptedPrices

NYSE = NyseCalendar()
MONDAY = date(2026, 3, 2)
CLOSE = datetime(2026, 3, 2, 21, 0, tzinfo=UTC)


class SchedulerOnAClock:
    """A scheduler whose source returns closes or fails, depending on the date."""

    def __init__(self, store: Store, metrics: WorkMetrics, start: datetime, *, look_back: int = 3) -> None:
        self.store = store
        self.metrics = metrics
        self.clock = Clock(start)
        self.look_back = look_back
        self.answer_takes = timedelta()
        self.missing: set[date] = set()
        self.ahead = timedelta()
        """Time by which the machine's clock is ahead of the database's clock."""
        self.asked: list[tuple[datetime, date]] = []
        self.waiting, self.given_up = 0.0, 0.0
        """Values of the metrics at the start of the last sleep."""

    async def sleep(self, seconds: float) -> None:
        self.waiting, self.given_up = (
            float(gauge._value.get()) for gauge in (self.metrics.runs_waiting, self.metrics.given_up)
        )
        await self.clock.sleep(seconds)

    async def database_clock(self) -> datetime:
        return self.clock.time - self.ahead

    async def closes(self, day: date) -> Mapping[str, str]:
        self.asked.append((self.clock.time, day))
        self.clock.time += self.answer_takes
        if day in self.missing:
            raise PricesUnavailable("not today")
        return {"A": "10"}

    def scheduler(self, calendar: Calendar = NYSE) -> Scheduler:
        return Scheduler(
            self.store,
            ScriptedPrices(closes=self.closes),
            calendar,
            self.metrics,
            look_back=self.look_back,
            now=self.clock.now,
            sleep=self.sleep,
            database_clock=self.database_clock,
        )

    async def work(self, until: datetime, token: int = 1, calendar: Calendar = NYSE) -> None:
        with pytest.raises(FakeTermOver):
            await self.scheduler(calendar).run(FakeTerm(token, f"holder {token}", clock=self.clock, until=until))


async def runs(raw: Connection) -> list[tuple[str, date, str]]:
    rows = await raw.fetch("select job, session_date, status from job_run order by started_at")
    return [(row["job"], row["session_date"], row["status"]) for row in rows]


@pytest.fixture(autouse=True)
async def portfolio(store: Store) -> None:
    await store.put_positions([entry(1, "A", "1")])


@pytest.fixture
def hourly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the scheduler read the records of done runs once an hour: a read each minute would take 20 s for a week."""
    monkeypatch.setattr("service.work.scheduler.LONGEST_SLEEP", 3600.0)


@pytest.mark.usefixtures("hourly")
async def test_through_a_week_each_session_has_each_run_once(
    store: Store, raw: Connection, metrics: WorkMetrics
) -> None:
    # Wednesday is the day before Thanksgiving, and Friday is a half day. The week is in the past, because the
    # database's clock dates the ends of runs. In a future week each run would end before it is due, and would be
    # repeated each minute.
    wednesday = datetime(2025, 11, 26, 17, 0, tzinfo=UTC)
    office = SchedulerOnAClock(store, metrics, wednesday, look_back=1)
    await office.work(wednesday + timedelta(days=7))
    days = [session.date for session in NYSE.sessions(date(2025, 11, 25), date(2025, 12, 3))]
    assert days == [
        date(2025, 11, 25),
        date(2025, 11, 26),
        date(2025, 11, 28),
        date(2025, 12, 1),
        date(2025, 12, 2),
        date(2025, 12, 3),
    ]
    found = await runs(raw)
    assert {status for _, _, status in found} == {"done"}
    for job in ("eod", "snapshot", "reconstruction"):
        assert [day for name, day, _ in found if name == job] == days[:-1]
    history = await store.history(UUID(int=1))
    assert [row.origin for row in history] == ["reconstructed", *["settled"] * 4]
    at_close = next(when for when, day in office.asked if day == date(2025, 11, 28))
    assert at_close == datetime(2025, 11, 28, 18, 0, tzinfo=UTC)


async def test_a_day_without_a_leader_at_the_close_is_not_lost(
    store: Store, raw: Connection, metrics: WorkMetrics
) -> None:
    """One process ran while the market was open, and stopped. Another process started after the close."""
    await SchedulerOnAClock(store, metrics, CLOSE - timedelta(hours=1), look_back=1).work(CLOSE - timedelta(minutes=1))
    await SchedulerOnAClock(store, metrics, CLOSE + timedelta(hours=2), look_back=1).work(
        CLOSE + timedelta(hours=3), token=2
    )
    (row,) = [row for row in await store.history(UUID(int=1)) if row.date == MONDAY]
    assert (row.origin, row.token) == ("captured", 2)


@pytest.mark.parametrize(
    ("seconds", "captured_by"), [(-1, 2), (0, 2), (0.5, 2), (0.749, 2), (0.751, 1), (0.999, 1), (1, 1)]
)
async def test_the_close_is_captured_once_even_if_the_leader_changes_in_that_second(
    store: Store, raw: Connection, metrics: WorkMetrics, seconds: float, captured_by: int
) -> None:
    """The source takes 0.75 s for the closes. A leader that stops within that time has written nothing."""
    await store.put_positions([entry(n, "A", "1") for n in (2, 3)])
    moment = CLOSE + timedelta(seconds=seconds)
    for token, since, until in (
        (1, CLOSE - timedelta(minutes=10), moment),
        (2, moment, CLOSE + timedelta(minutes=5)),
    ):
        office = SchedulerOnAClock(store, metrics, since, look_back=1)
        office.answer_takes = timedelta(seconds=0.75)
        await office.work(until, token)
    found = await raw.fetch(
        "select portfolio_id, origin, revision, token from portfolio_history where date = $1 order by 1", MONDAY
    )
    assert [tuple(row) for row in found] == [(UUID(int=n), "captured", 1, captured_by) for n in (1, 2, 3)]
    assert ("eod", MONDAY, "done") in await runs(raw)


async def test_a_close_during_a_long_catch_up_is_captured_right_after_it(store: Store, metrics: WorkMetrics) -> None:
    office = SchedulerOnAClock(store, metrics, CLOSE - timedelta(minutes=1), look_back=1)
    office.answer_takes = timedelta(minutes=2)
    await office.work(CLOSE + timedelta(hours=1))
    friday, monday = await store.history(UUID(int=1))
    assert (friday.date, monday.date, monday.origin) == (date(2026, 2, 27), MONDAY, "captured")
    assert min(when for when, day in office.asked if day == MONDAY) < CLOSE + timedelta(minutes=10)


async def test_a_clock_set_back_does_not_delay_the_next_close(store: Store, metrics: WorkMetrics) -> None:
    office = SchedulerOnAClock(store, metrics, CLOSE + timedelta(days=4), look_back=1)
    scheduler = office.scheduler()

    async def set_back(seconds: float) -> None:
        await office.clock.sleep(seconds)
        if len(office.clock.slept) == 1:
            office.clock.time = CLOSE - timedelta(minutes=30)

    scheduler._sleep = set_back
    with pytest.raises(FakeTermOver):
        await scheduler.run(FakeTerm(checks=60))
    assert (CLOSE, MONDAY) in office.asked


async def test_missed_runs_are_caught_up_oldest_first_within_the_look_back(
    store: Store, raw: Connection, metrics: WorkMetrics
) -> None:
    office = SchedulerOnAClock(store, metrics, datetime(2026, 3, 5, 15, 0, tzinfo=UTC), look_back=3)
    await office.work(datetime(2026, 3, 5, 15, 1, tzinfo=UTC))
    assert await runs(raw) == [
        (job, date(2026, 3, day), "done") for day in (2, 3, 4) for job in ("eod", "snapshot", "reconstruction")
    ]


async def test_a_failed_run_is_retried_and_delays_no_other(store: Store, raw: Connection, metrics: WorkMetrics) -> None:
    office = SchedulerOnAClock(store, metrics, datetime(2026, 3, 4, 15, 0, tzinfo=UTC), look_back=2)
    office.missing = {MONDAY}
    await office.work(datetime(2026, 3, 4, 15, 0, 30, tzinfo=UTC))
    stands = {(job, day): status for job, day, status in await runs(raw)}
    assert stands["snapshot", MONDAY] == "running"
    assert stands["snapshot", date(2026, 3, 3)] == "done"
    found = await raw.fetchval("select error from job_run where job = 'snapshot' and session_date = $1", MONDAY)
    assert found == "2026-03-02: not today"
    assert office.waiting == 3, "the runs of Monday"
    assert metrics.runs_waiting._value.get() == 0, "a task that no longer leads reports no waiting runs"
    office.missing = set()
    await office.work(datetime(2026, 3, 4, 15, 3, tzinfo=UTC))
    assert {status for _, _, status in await runs(raw)} == {"done"}
    assert await raw.fetchval("select count(*) from job_run where error is not null") == 0
    assert office.waiting == 0


async def test_a_second_leader_does_not_repeat_finished_runs(
    store: Store, raw: Connection, metrics: WorkMetrics
) -> None:
    office = SchedulerOnAClock(store, metrics, CLOSE, look_back=2)
    await office.work(CLOSE + timedelta(minutes=1))
    asked = len(office.asked)
    await office.work(CLOSE + timedelta(minutes=5), token=2)
    assert len(office.asked) == asked


async def test_a_run_done_by_hand_before_it_was_due_is_repeated_when_it_is_due(
    store: Store, raw: Connection, metrics: WorkMetrics
) -> None:
    """The closes that a snapshot gets minutes after the market's close are not official yet."""
    early, due = CLOSE + timedelta(minutes=5), due_at("snapshot", NYSE.last_closed(CLOSE))
    await raw.execute(
        "insert into job_run (job, session_date, status, holder, token, finished_at) "
        "values ('snapshot', $1, 'done', 'by hand', 0, $2)",
        *(MONDAY, early),
    )
    office = SchedulerOnAClock(store, metrics, early, look_back=1)
    await office.work(CLOSE + timedelta(hours=20))
    run = await raw.fetchrow("select status, attempts, finished_at from job_run where job = 'snapshot'")
    assert run is not None
    assert (run["status"], run["attempts"]) == ("done", 2)
    assert [day for at, day in office.asked if at >= due] == [MONDAY]


async def test_a_database_failure_delays_the_run_and_does_not_end_the_term(
    store: Store, raw: Connection, metrics: WorkMetrics
) -> None:
    office = SchedulerOnAClock(store, metrics, CLOSE, look_back=1)
    scheduler = office.scheduler()

    async def sleep(seconds: float) -> None:
        await office.clock.sleep(seconds)
        if office.clock.time >= CLOSE + timedelta(minutes=3):
            await raw.execute("alter table if exists away rename to job_run")

    scheduler._sleep = sleep
    await raw.execute("alter table job_run rename to away")
    with pytest.raises(FakeTermOver):
        await scheduler.run(FakeTerm(clock=office.clock, until=CLOSE + timedelta(minutes=10)))
    assert (await store.job_runs())["eod"].session_date == MONDAY


async def test_a_failure_before_the_claim_does_not_end_the_term(
    store: Store, raw: Connection, metrics: WorkMetrics
) -> None:
    await raw.execute("""
        create function meddle() returns trigger language plpgsql as $$ begin raise 'not now'; end $$;
        create trigger meddle before insert on job_run for each row execute function meddle();
    """)
    office = SchedulerOnAClock(store, metrics, CLOSE, look_back=1)
    await office.work(CLOSE + timedelta(minutes=3))
    await raw.execute("drop trigger meddle on job_run")
    await office.work(CLOSE + timedelta(minutes=5), token=2)
    assert {status for _, _, status in await runs(raw)} == {"done"}


async def test_a_leader_that_lost_its_term_reports_no_waiting_runs(
    store: Store, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the alert would last while the task is a follower."""
    office = SchedulerOnAClock(store, metrics, CLOSE, look_back=2)

    async def lose(day: date) -> Mapping[str, str]:
        await store.claim_fence(FakeTerm(2, "newer"))
        assert metrics.runs_waiting._value.get() > 0
        return {"A": "10"}

    monkeypatch.setattr(office, "closes", lose)
    with pytest.raises(StaleTerm):
        await office.scheduler().run(FakeTerm(1))
    assert metrics.runs_waiting._value.get() == 0


async def test_a_newer_term_ends_the_work(store: Store, metrics: WorkMetrics) -> None:
    office = SchedulerOnAClock(store, metrics, CLOSE, look_back=1)
    await store.claim_fence(FakeTerm(5, "newer"))
    with pytest.raises(StaleTerm):
        await office.scheduler().run(FakeTerm(4))


async def test_a_follower_reports_the_next_runs(store: Store, metrics: WorkMetrics) -> None:
    scheduler = SchedulerOnAClock(store, metrics, CLOSE).scheduler()
    assert scheduler.next_runs() == {
        "eod": CLOSE + timedelta(days=1),
        "snapshot": datetime(2026, 3, 3, 9, 0, tzinfo=UTC),
        "reconstruction": datetime(2026, 3, 3, 9, 30, tzinfo=UTC),
    }


@pytest.mark.usefixtures("hourly")
async def test_a_market_that_never_closes_has_a_session_each_day(
    store: Store, raw: Connection, metrics: WorkMetrics
) -> None:
    office = SchedulerOnAClock(store, metrics, CLOSE, look_back=1)
    await office.work(CLOSE + timedelta(days=3), calendar=AroundTheClockCalendar())
    assert [day.day for job, day, _ in await runs(raw) if job == "eod"] == [1, 2, 3, 4]
    assert {status for _, _, status in await runs(raw)} == {"done"}


@pytest.mark.usefixtures("hourly")
async def test_an_unsettled_session_before_the_look_back_is_reported_until_it_is_settled(
    store: Store, raw: Connection, metrics: WorkMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    office = SchedulerOnAClock(store, metrics, datetime(2026, 3, 3, 10, 0, tzinfo=UTC), look_back=2)
    await office.work(datetime(2026, 3, 3, 11, 0, tzinfo=UTC))
    assert office.given_up == 0, "sessions before the first settled one do not count"
    office.clock.time = datetime(2026, 3, 10, 15, 0, tzinfo=UTC)  # a week later: two of five sessions are caught up
    caplog.clear()
    await office.work(datetime(2026, 3, 10, 20, 10, tzinfo=UTC), token=2)
    assert office.given_up == 3
    lost = [line for line in caplog.messages if "by hand" in line]
    assert lost == [
        "sessions left unsettled and too old to catch up, run the snapshot by hand: 2026-03-03, 2026-03-04, 2026-03-05"
    ]
    term = FakeTerm(3, "by hand")
    await store.claim_fence(term)
    jobs = Jobs(store, ScriptedPrices(closes=office.closes), NYSE, now=office.clock.now)
    for session in NYSE.sessions(date(2026, 3, 3), date(2026, 3, 5)):
        await jobs.run("snapshot", session, term)
    await office.work(office.clock.time + timedelta(minutes=5), token=4)
    assert office.given_up == 0
    assert [row.date.day for row in await store.history(UUID(int=1)) if row.date >= MONDAY] == [2, 3, 4, 5, 6, 9, 10]


async def with_an_unsettled_session(store: Store, office: SchedulerOnAClock) -> None:
    """Leave the sessions of 3 to 5 March unsettled, before the look-back of a leader that starts on 10 March."""
    await office.work(datetime(2026, 3, 3, 11, 0, tzinfo=UTC))
    office.clock.time = datetime(2026, 3, 10, 15, 0, tzinfo=UTC)


async def test_a_snapshot_by_hand_ends_the_report_of_the_same_leader_within_a_minute(
    store: Store, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remedy of the alert SessionUnsettled must end the alert before the next run is due."""
    office = SchedulerOnAClock(store, metrics, datetime(2026, 3, 3, 10, 0, tzinfo=UTC), look_back=2)
    await with_an_unsettled_session(store, office)
    jobs = Jobs(store, ScriptedPrices(closes=office.closes), NYSE, now=office.clock.now)
    reported: list[tuple[timedelta, float]] = []
    settled_at: datetime | None = None

    async def sleep(seconds: float) -> None:
        nonlocal settled_at
        await SchedulerOnAClock.sleep(office, seconds)
        if settled_at is None:
            for session in NYSE.sessions(date(2026, 3, 3), date(2026, 3, 5)):
                await jobs.run("snapshot", session, FakeTerm(2, "holder 2"))
            settled_at = office.clock.time
        else:
            reported.append((office.clock.time - settled_at, office.given_up))

    monkeypatch.setattr(office, "sleep", sleep)
    await office.work(datetime(2026, 3, 10, 15, 10, tzinfo=UTC), token=2)
    assert office.given_up == 0
    assert min(after for after, given_up in reported if given_up == 0) <= timedelta(minutes=2)


async def test_an_unsettled_session_alone_makes_no_write_due_so_the_leader_does_not_resign(
    store: Store, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While only an old session is unsettled, no write is due, so the leader must not resign for lack of a commit."""
    office = SchedulerOnAClock(store, metrics, datetime(2026, 3, 3, 10, 0, tzinfo=UTC), look_back=2)
    await with_an_unsettled_session(store, office)
    writes = store.writes.of("lease")
    due: list[float | None] = []

    async def sleep(seconds: float) -> None:
        due.append(writes.remaining())
        writes.failed()
        await SchedulerOnAClock.sleep(office, seconds)

    monkeypatch.setattr(office, "sleep", sleep)
    await office.work(datetime(2026, 3, 10, 15, 10, tzinfo=UTC), token=2)
    assert office.given_up == 3
    assert len(due) > 3
    assert set(due) == {None}


async def test_with_a_clock_that_is_ahead_no_run_begins_early(
    store: Store, raw: Connection, metrics: WorkMetrics
) -> None:
    office = SchedulerOnAClock(store, metrics, CLOSE - timedelta(minutes=5), look_back=1)
    office.ahead = timedelta(hours=1)  # the machine's clock shows 15:55, the database's clock 14:55
    await office.work(CLOSE + timedelta(minutes=59))
    assert ("eod", MONDAY, "done") not in await runs(raw)
    await office.work(CLOSE + timedelta(hours=1, minutes=1), token=2)
    assert ("eod", MONDAY, "done") in await runs(raw)


async def test_a_clock_that_steps_ahead_during_a_sleep_makes_the_scheduler_miss_no_run(
    store: Store, raw: Connection, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = SchedulerOnAClock(store, metrics, CLOSE - timedelta(minutes=30), look_back=1)

    async def sleep(seconds: float) -> None:
        await SchedulerOnAClock.sleep(office, seconds)
        if office.ahead == timedelta():
            office.ahead = timedelta(hours=1)
            office.clock.time += office.ahead

    monkeypatch.setattr(office, "sleep", sleep)
    await office.work(CLOSE + timedelta(hours=1, minutes=5))
    (at, day), *_ = [asked for asked in office.asked if asked[1] == MONDAY]
    assert CLOSE <= at - office.ahead < CLOSE + timedelta(minutes=2)
    assert ("eod", day, "done") in await runs(raw)


@pytest.mark.parametrize("hours", [5, 12])
async def test_a_clock_that_is_set_right_does_not_delay_the_close(
    store: Store, metrics: WorkMetrics, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader looks at the timetable before NTP corrects its clock. The database's clock is always right."""
    office = SchedulerOnAClock(store, metrics, CLOSE - timedelta(minutes=30) + timedelta(hours=hours), look_back=1)
    office.ahead = timedelta(hours=hours)

    async def sleep(seconds: float) -> None:
        await SchedulerOnAClock.sleep(office, seconds)
        office.clock.time -= office.ahead
        office.ahead = timedelta()

    monkeypatch.setattr(office, "sleep", sleep)
    await office.work(CLOSE + timedelta(hours=hours, minutes=5))
    assert CLOSE <= min(at for at, day in office.asked if day == MONDAY) < CLOSE + timedelta(minutes=2)


async def test_a_database_that_is_away_during_a_sleep_ends_no_term(
    store: Store, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = SchedulerOnAClock(store, metrics, CLOSE - timedelta(minutes=30), look_back=1)

    async def away_until_the_close() -> datetime:
        if office.asked and office.clock.time < CLOSE:
            raise StoreError("away")
        return office.clock.time

    monkeypatch.setattr(office, "database_clock", away_until_the_close)
    await office.work(CLOSE + timedelta(minutes=5))
    assert MONDAY in {day for _, day in office.asked}


async def test_a_done_run_whose_record_disappears_runs_again_within_a_minute(
    store: Store, raw: Connection, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dump from before the EOD capture is restored, and the source has no prices now."""
    office = SchedulerOnAClock(store, metrics, CLOSE + timedelta(hours=1), look_back=1)
    restored_at = CLOSE + timedelta(hours=2)

    async def sleep(seconds: float) -> None:
        await SchedulerOnAClock.sleep(office, seconds)
        if not office.missing and office.clock.time >= restored_at:
            office.missing = {MONDAY}
            await raw.execute("delete from job_run; delete from portfolio_history; delete from price_eod")

    monkeypatch.setattr(office, "sleep", sleep)
    await office.work(restored_at + timedelta(minutes=3))
    assert [day for _, day in office.asked[:2]] == [MONDAY, MONDAY]
    assert office.asked[1][0] <= restored_at + timedelta(minutes=1)
    assert office.waiting == 1, "the alert JobsWait counts the run"


async def test_an_outage_without_waiting_runs_counts_as_no_failed_write(
    store: Store, metrics: WorkMetrics, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The scheduler only looks for missing records, so its leader must not resign for lack of a commit."""
    office = SchedulerOnAClock(store, metrics, CLOSE + timedelta(hours=1), look_back=1)
    failures: list[float | None] = []

    async def fail(_: date) -> Never:
        failures.append(store.writes.of("lease").remaining())
        raise StoreError("away")

    async def sleep(seconds: float) -> None:
        await SchedulerOnAClock.sleep(office, seconds)
        monkeypatch.setattr(store, "runs", fail)

    monkeypatch.setattr(office, "sleep", sleep)
    await office.work(CLOSE + timedelta(hours=2))
    assert len(failures) > 3
    assert set(failures) == {None}
    assert not any("the database fails" in line for line in caplog.messages)


@pytest.mark.parametrize(("start", "is_known_to_wait"), [(CLOSE - timedelta(minutes=1), True), (CLOSE, False)])
async def test_a_look_at_a_silent_database_ends_the_term_if_a_run_is_known_to_wait(
    store: Store,
    migrated: str,
    metrics: WorkMetrics,
    monkeypatch: pytest.MonkeyPatch,
    start: datetime,
    is_known_to_wait: bool,
) -> None:
    """The database is silent from the close on. Before the first look of a term, nobody knows whether a run waits."""
    monkeypatch.setattr(write_watch, "NOTHING_COMMITTED_LIMIT", 2.0)
    monkeypatch.setattr(connecting, "ROLLBACK_LIMIT", 0.2)
    port = urlsplit(migrated).port
    assert port is not None
    async with Proxy(port) as proxy, asyncio.timeout(LIMIT):
        distant = await Store.connect(migrated.replace(f":{port}", f":{proxy.port}"), call_limit=2.0)
        office = SchedulerOnAClock(distant, metrics, start, look_back=1)
        silent_reads = 0

        async def clock() -> datetime:
            nonlocal silent_reads
            if office.clock.time >= CLOSE:
                silent_reads += 1
                proxy.black_hole()
                await distant.clock()
            return office.clock.time

        monkeypatch.setattr(office, "database_clock", clock)
        writes = distant.writes.of("lease")
        writes.begin_term()
        remaining: list[float | None] = []
        writes.on_change = lambda: remaining.append(writes.remaining())
        await office.work(CLOSE + timedelta(seconds=1))
        proxy.flow()
        await distant.close()
    assert remaining[-1] == (0 if is_known_to_wait else None)
    assert silent_reads == 1, "a second read would delay the end of the term"


async def interrupted_snapshot(store: Store, raw: Connection, wrote_at: datetime) -> None:
    """Interrupt a snapshot after it has written the first of three portfolios, at a close of 7."""
    await store.put_positions([entry(n, "A", "1") for n in (1, 2, 3)])

    async def closes(_: date) -> Mapping[str, str]:
        return {"A": "7"}

    def stop(done: int, _: int) -> None:
        if done == 1:
            raise FakeTermOver

    term, session = FakeTerm(1, "first"), NYSE.session(MONDAY)
    assert session is not None
    await store.claim_fence(term)
    jobs = Jobs(store, ScriptedPrices(closes=closes), NYSE, chunk=1, now=lambda: wrote_at)
    with pytest.raises(FakeTermOver):
        await jobs.run("snapshot", session, term, stop)
    await raw.execute("update job_run set started_at = $1, updated_at = $1", wrote_at)
    assert await raw.fetchval("select count(*) from portfolio_history") == 1


async def snapshot_by_the_next_leader(store: Store, metrics: WorkMetrics) -> SchedulerOnAClock:
    office = SchedulerOnAClock(store, metrics, CLOSE + timedelta(hours=3), look_back=1)
    await office.work(CLOSE + timedelta(hours=14), token=2)
    return office


async def test_an_interrupted_run_by_hand_begins_again_when_it_is_due(
    store: Store, raw: Connection, metrics: WorkMetrics
) -> None:
    """The run by hand stored its closes before the official closes were available."""
    await interrupted_snapshot(store, raw, CLOSE + timedelta(hours=2))
    await snapshot_by_the_next_leader(store, metrics)
    found = await raw.fetch("select value, stale from portfolio_history where date = $1", MONDAY)
    assert [tuple(row) for row in found] == [(10, False)] * 3
    assert ("snapshot", MONDAY, "done") in await runs(raw)


async def test_a_due_run_that_the_leader_did_not_finish_is_continued_at_its_cursor(
    store: Store, raw: Connection, metrics: WorkMetrics
) -> None:
    await interrupted_snapshot(store, raw, due_at("snapshot", NYSE.last_closed(CLOSE)))
    office = await snapshot_by_the_next_leader(store, metrics)
    assert office.asked == []
    found = await raw.fetch("select value, token from portfolio_history where date = $1 order by portfolio_id", MONDAY)
    assert [tuple(row) for row in found] == [(7, 1), (7, 2), (7, 2)]
