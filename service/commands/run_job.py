"""`python -m service run JOB`: runs a daily job now, in any task's container, whether or not a task leads."""

import argparse
import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from typing import NoReturn

from prometheus_client import CollectorRegistry
from tqdm import tqdm

from runtime.escape import one_line
from service.clock import EarlierClock, utc_now
from service.commands.output import Parser, print_line
from service.database.store import Store
from service.market.calendar import CALENDARS, Calendar, Session
from service.market.overrides import OverriddenCalendar
from service.portfolio.formats import read_day
from service.portfolio.records import JobName
from service.price_source import price_source
from service.prices import PricesUnavailable
from service.settings import Settings, SettingsError
from service.work.background import SCHEDULER_LEASE
from service.work.jobs import Jobs
from service.work.metrics import WorkMetrics
from service.work.protection import protection_by

JOB_NAMES: dict[str, JobName] = {
    "eod": "eod",
    "snapshot": "snapshot",
    "reconstruction": "reconstruction",
    "reconstruct": "reconstruction",
}
"""Jobs by their names on the command line. `reconstruct` is another name for `reconstruction`."""

ABOUT = """Run a daily job now, whether it has run before or not. Running it twice has the same result as running it
once: eod adds the missing rows, snapshot corrects every row to the official closes, and reconstruction (or reconstruct)
fills the gaps of the last sessions and corrects stale rows. The run begins at the first portfolio, even if an earlier
run was interrupted.

The run claims the fence of the lease daily_scheduler in the database, without an election. The next write of a working
leader is then refused, the leader resigns, and the next term, with a newer token, continues. If that term begins while
this run still works, this run is refused and ends with status 1, and the leader continues from the run's cursor."""


@dataclass(frozen=True, slots=True)
class RunArguments:
    """The arguments of the command. Without dates, the job runs for the last session that is over."""

    job: JobName
    first: date | None
    last: date | None
    dry_run: bool


@dataclass(frozen=True, slots=True)
class ManualTerm:
    """A term without an election. After a newer term has claimed the fence, the next write raises StaleTerm."""

    token: int
    holder: str
    name: str = SCHEDULER_LEASE

    def check(self) -> None:
        """Do nothing: only a refused write shows that this term has ended."""


def parse(options: Sequence[str]) -> RunArguments:
    """Read the command line. argparse ends the process with status 2 if it is invalid."""
    parser = Parser(
        prog="python -m service run", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", choices=JOB_NAMES, metavar="JOB", help="eod, snapshot or reconstruction")
    parser.add_argument("--date", type=_date, metavar="D", help="the session of that date (default: the last session)")
    parser.add_argument("--from", type=_date, metavar="D", dest="first", help="every session from that date on")
    parser.add_argument("--to", type=_date, metavar="D", dest="last", help="every session up to that date, inclusive")
    parser.add_argument("--dry-run", action="store_true", help="print what would run, and write nothing")
    arguments = parser.parse_args(options)
    if arguments.date is not None and (arguments.first is not None or arguments.last is not None):
        parser.error("--date cannot be used with --from and --to")
    if (arguments.first is None) != (arguments.last is None):
        parser.error("--from and --to must be used together")
    if arguments.first is not None and arguments.first > arguments.last:
        parser.error(f"--from {arguments.first} is later than --to {arguments.last}")
    return RunArguments(
        JOB_NAMES[arguments.job], arguments.date or arguments.first, arguments.date or arguments.last, arguments.dry_run
    )


async def run(arguments: RunArguments, settings: Settings, now: Callable[[], datetime] = utc_now) -> None:
    """Run the job for each of the sessions, oldest first, and protect this task from a scale-in meanwhile.

    Raises:
        SettingsError: there is no such session, or the session is not over.
        PricesUnavailable: as `Jobs.run`, after the other sessions are done.
        StoreError: as `Jobs.run`.
        StaleTerm: a leader has taken over.
    """
    calendar = OverriddenCalendar(CALENDARS[settings.market_calendar]())
    async with await Store.connect(settings.database_url.get_secret_value(), connections=2) as store:
        await store.check_sessions()
        calendar.override(await store.market_overrides(calendar.name))
        clock = EarlierClock(now, store.clock)
        await clock.compare()
        sessions = _sessions(arguments, calendar, clock.now())
        prices = price_source(settings, calendar, now)
        try:
            # With dates, the job runs for those sessions only. Without dates, reconstruction looks back as usual.
            jobs = Jobs(store, prices, calendar, now=clock.now, **({} if arguments.first is None else {"look_back": 1}))
            if arguments.dry_run:
                await _print_plan(arguments.job, sessions, jobs, store)
            else:
                async with _protected(settings.ecs_agent_uri):
                    await _run(arguments.job, sessions, jobs, store)
        finally:
            await prices.aclose()


@asynccontextmanager
async def _protected(agent_uri: str | None) -> AsyncIterator[None]:
    """Protect this task from a scale-in for the length of the block. Without an ECS agent, do nothing."""
    protection = protection_by(agent_uri, WorkMetrics(CollectorRegistry()))
    protecting = asyncio.create_task(protection.run())
    try:
        with protection.held():
            yield
    finally:
        protecting.cancel()
        await asyncio.wait([protecting])


async def _run(job: JobName, sessions: list[Session], jobs: Jobs, store: Store) -> None:
    holder = f"by-hand:{socket.gethostname()}"
    term = ManualTerm(await store.claim_fence_by_hand(SCHEDULER_LEASE, holder), holder)
    unpriced = []
    for session in sessions:
        try:
            with tqdm(desc=f"{job} {session.date}", unit="portfolio", unit_scale=True, disable=None) as bar:
                rows = await jobs.run(job, session, term, partial(_show, bar), rerun=True, stale_prices=False)
        except PricesUnavailable as error:
            async with store.fenced(term) as writes:
                await writes.fail(job, session.date, str(error))
            unpriced.append(str(error))
        else:
            print_line(f"{job} of {session.date}: {rows or 0} rows written")
    if unpriced:
        raise PricesUnavailable("; ".join(unpriced))


def _show(bar: "tqdm[NoReturn]", done: int, total: int) -> None:
    if done < bar.n:  # the job has begun another session
        bar.reset()
    bar.total = total
    bar.update(done - bar.n)


async def _print_plan(job: JobName, sessions: list[Session], jobs: Jobs, store: Store) -> None:
    for day in (day.date for session in sessions for day in jobs.days(job, session)):
        book = await jobs.book(job, day)
        if not len(book):
            has_rows = await store.has_positions(day)
            why = "every portfolio with positions has a row" if has_rows else "no portfolio had positions"
            print_line(f"{job} of {day} would write nothing: {why}")
            continue
        closes = await store.closes(day, book.held())
        official = sum(close.is_official(day) for close in closes.values())
        print_line(
            f"{job} of {day} would value {len(book)} portfolios; "
            f"{official} of {len(book.held())} symbols have that day's close"
        )


def _sessions(arguments: RunArguments, calendar: Calendar, now: datetime) -> list[Session]:
    last_closed = calendar.last_closed(now)
    if arguments.first is None or arguments.last is None:
        return [last_closed]
    sessions = calendar.sessions(arguments.first, arguments.last)
    if not sessions:
        days = (
            f"on {arguments.first}"
            if arguments.first == arguments.last
            else f"from {arguments.first} to {arguments.last}"
        )
        raise SettingsError(f"no session {days} in the calendar {calendar.name}")
    if sessions[-1].close > last_closed.close:
        raise SettingsError(
            f"the session of {sessions[-1].date} is not over; the last session was on {last_closed.date}"
        )
    return sessions


def _date(text: str) -> date:
    try:
        return read_day(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{one_line(repr(text), 80)} is {error}") from None
