"""`python -m service run JOB`: a daily job now, in any task's container, whether elections work or not."""

import argparse
import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from typing import NoReturn

from prometheus_client import CollectorRegistry
from tqdm import tqdm

from runtime.escape import one_line
from service.clock import LesserClock, utc_now
from service.commands.output import Parser
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

JOB_NAMES: dict[str, JobName] = {"eod": "eod", "snapshot": "snapshot", "reconstruct": "reconstruction"}

ABOUT = """Run a daily job now, whether it was run before or not. What it writes is the same however often it is run:
eod adds the rows that are missing, snapshot sets every row right at the official closes, reconstruct fills the gaps of
the last sessions and sets stale rows right.

The run takes the lease daily_scheduler up in the database, without an election. A leader that is at work is then
refused at its next write: it resigns, and the next term, whose token is newer, goes on. Should that term begin while
this run is at work, this run is refused in its turn and ends with status 1; the leader goes on from its cursor."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for. Without dates: the last session that is over."""

    job: JobName
    first: date | None
    last: date | None
    dry_run: bool


@dataclass(frozen=True, slots=True)
class TermByHand:
    """A term that nobody elected: it is over when a newer one has taken the lease up, and finds out when it writes."""

    token: int
    holder: str
    name: str = SCHEDULER_LEASE

    def check(self) -> None:
        """No election, no end that could be known before a write is refused."""


def parse(options: Sequence[str]) -> Asked:
    """Read the command line; argparse ends the process, with status 2, if it makes no sense."""
    parser = Parser(
        prog="python -m service run", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", choices=JOB_NAMES)
    parser.add_argument("--date", type=_date, metavar="D", help="the session of that date (default: the last one)")
    parser.add_argument("--from", type=_date, metavar="D", dest="first", help="each session from that date on")
    parser.add_argument("--to", type=_date, metavar="D", dest="last", help="each session until that date, included")
    parser.add_argument("--dry-run", action="store_true", help="say what would be run, and write nothing")
    asked = parser.parse_args(options)
    if asked.date is not None and (asked.first is not None or asked.last is not None):
        parser.error("--date stands alone, without --from and --to")
    if (asked.first is None) != (asked.last is None):
        parser.error("--from and --to belong together")
    if asked.first is not None and asked.first > asked.last:
        parser.error(f"--from {asked.first} is later than --to {asked.last}")
    return Asked(JOB_NAMES[asked.job], asked.date or asked.first, asked.date or asked.last, asked.dry_run)


async def run(asked: Asked, settings: Settings, now: Callable[[], datetime] = utc_now) -> None:
    """Run the job for each session asked for, oldest first. In a service's task it is protected from a scale-in.

    Raises:
        SettingsError: there is no such session, or it is not over.
        PricesUnavailable: as `Jobs.run`, once the other sessions are done.
        StoreError: as `Jobs.run`.
        StaleTerm: a leader has taken over.
    """
    calendar = OverriddenCalendar(CALENDARS[settings.market_calendar]())
    async with await Store.connect(settings.database_url.get_secret_value(), connections=2) as store:
        await store.check_sessions()
        calendar.override(await store.market_overrides(calendar.name))
        clock = LesserClock(now, store.clock)
        await clock.compare()
        sessions = _sessions(asked, calendar, clock.now())
        prices = price_source(settings, calendar, now)
        try:
            # For dates that were named, those sessions and no other; else reconstruction has its usual look-back.
            jobs = Jobs(store, prices, calendar, now=clock.now, **({} if asked.first is None else {"look_back": 1}))
            if asked.dry_run:
                await _tell(asked.job, sessions, jobs, store)
            else:
                async with _protected(settings.ecs_agent_uri):
                    await _run(asked.job, sessions, jobs, store)
        finally:
            await prices.aclose()


@asynccontextmanager
async def _protected(agent_uri: str | None) -> AsyncIterator[None]:
    """Protect this task from a scale-in for the length of the block; where there is no agent nothing is done."""
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
    term = TermByHand(await store.take_up_by_hand(SCHEDULER_LEASE, holder), holder)
    unpriced = []
    for session in sessions:
        try:
            with tqdm(desc=f"{job} {session.date}", unit="portfolio", unit_scale=True, disable=None) as bar:
                rows = await jobs.run(job, session, term, partial(_show, bar), anew=True)
        except PricesUnavailable as error:
            unpriced.append(str(error))
        else:
            sys.stdout.write(f"{job} of {session.date}: {rows or 0} rows written\n")
    if unpriced:
        raise PricesUnavailable("; ".join(unpriced))


def _show(bar: "tqdm[NoReturn]", done: int, total: int) -> None:
    if done < bar.n:  # the next session of the same run
        bar.reset()
    bar.total = total
    bar.update(done - bar.n)


async def _tell(job: JobName, sessions: list[Session], jobs: Jobs, store: Store) -> None:
    for day in (day.date for session in sessions for day in jobs.days(job, session)):
        book = await jobs.book(job, day)
        if not len(book):
            sys.stdout.write(f"{job} of {day} would write nothing: no portfolio lacks a row\n")
            continue
        closes = await store.closes(day, book.held())
        there = sum(close.is_official(day) for close in closes.values())
        sys.stdout.write(
            f"{job} of {day} would value {len(book)} portfolios; "
            f"of {len(book.held())} symbols, {there} have that day's close\n"
        )


def _sessions(asked: Asked, calendar: Calendar, now: datetime) -> list[Session]:
    last_closed = calendar.last_closed(now)
    if asked.first is None or asked.last is None:
        return [last_closed]
    sessions = calendar.sessions(asked.first, asked.last)
    if not sessions:
        days = f"on {asked.first}" if asked.first == asked.last else f"from {asked.first} to {asked.last}"
        raise SettingsError(f"no session {days} in the calendar {calendar.name}")
    if sessions[-1].close > last_closed.close:
        raise SettingsError(
            f"the session of {sessions[-1].date} is not over; the last one is that of {last_closed.date}"
        )
    return sessions


def _date(text: str) -> date:
    try:
        return read_day(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{one_line(repr(text), 80)} is {error}") from None
