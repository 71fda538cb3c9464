"""The intraday tracker: while the market is open, the value of every portfolio at each tick of the clock's grid."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from datetime import date, datetime, timedelta
from typing import Never
from uuid import UUID

from service.clock import utc_now
from service.database.connection import StoreError, side_by_side
from service.database.fenced_writes import FencedWrites
from service.database.store import Store
from service.market.calendar import Calendar, Session
from service.market.tick_schedule import EPOCH, Grid
from service.outage import Outage
from service.portfolio.crowds import line_up
from service.portfolio.freshness import is_fresh
from service.portfolio.positions import Book, uuids
from service.portfolio.records import Loading, Quote
from service.portfolio.split_suspects import report_jumps
from service.portfolio.valuation import Mark, Marks, Values, priced_in, quoted, report_too_wide, usable, value_all
from service.prices import PRICE_LIMIT, Price, PriceSource, PricesUnavailable
from service.prices.standing import Refusals, standing_of
from service.work.metrics import WorkMetrics
from service.work.term import LONGEST_SLEEP, Sleep, Term, take_up

logger = logging.getLogger(__name__)

PORTFOLIOS_A_LANE, LANES = 25_000, 2
"""Beyond how many portfolios a tick takes another transaction beside the first, and how many it takes at most: the
database writes each with one processor."""

POINTS_A_TICK, LONGEST_TURN = 20_000, 10
"""How many portfolios get a point of the day's course at every tick. Of more, each gets one in its turn, once in so
many ticks at the least: every five minutes. A million points every 30 seconds is more than any database keeps."""

RETENTION_PAUSE = timedelta(minutes=10)
"""From an attempt to drop old days that failed to the next: each holds up who reads the day's course, for a moment."""

SAY_EVERY = 5.0
"""Seconds between two lines of log on how far the loading has come."""


class Tracker:
    """Values every portfolio each `interval` seconds of a session, in one fenced transaction a tick (`LANES`, of many).

    Ticks fall on multiples of the interval since the epoch, so that two leaders in a row keep one grid; the first tick
    of a term comes at once. A tick that is late because the one before took long is left out.

    Positions are loaded when a term begins, whether or not the market is open, and then kept up to date at each tick.
    The day's course of each portfolio gets a point a tick; of more than `points_a_tick`, each gets one in its turn,
    once in `LONGEST_TURN` ticks at the least.

    A price that the source does not give is carried forward and marked stale; so is one that is not `is_fresh`. A
    source that gives an older price than before has answered: the newer one stays, and is stale by its own age only.
    """

    def __init__(
        self,
        store: Store,
        prices: PriceSource,
        calendar: Calendar,
        metrics: WorkMetrics,
        *,
        interval: float = 30.0,
        keep_days: int = 30,
        points_a_tick: int = POINTS_A_TICK,
        now: Callable[[], datetime] = utc_now,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._store = store
        self._prices = prices
        self._standing = standing_of(prices)
        self._calendar = calendar
        self._grid = Grid(calendar, timedelta(seconds=interval))
        self._metrics = metrics
        self._price_limit = min(interval, PRICE_LIMIT)
        self._keep_days = timedelta(days=keep_days)
        self._points_a_tick = points_a_tick
        self._now = now
        self._sleep = sleep
        self._outage = Outage(logger, "a tick failed, more may follow: %s", "ticks are written again")
        self._prices_outage = Outage(
            logger,
            "prices are unavailable, the last known ones are carried forward: %s",
            "the price source answers again",
        )
        self._retention_outage = Outage(
            logger,
            "old days of intraday values are not dropped yet: %s",
            "old days of intraday values are dropped again",
        )
        self._written = self._grid.number(now())
        """Ticks written, from a number that differs from process to process: whose turn it is to get a point."""
        self.last_run: datetime | None = None
        """When the last tick of this process was committed."""
        self.loading: Loading | None = None
        """While positions are being loaded, how far that has come."""

    @property
    def next_run(self) -> datetime:
        """When the leader's next tick is due, whoever leads."""
        return self._grid.next_tick(self._now())

    async def run(self, term: Term) -> Never:
        """Track until the term is over. A price source or a database that fails costs ticks, not the term.

        Raises:
            StaleTerm: a newer term has taken the lease up in the database.
            TermOver: the term said so.
        """
        await take_up(self._store, term, self._sleep)
        book: Book | None = None
        quotes: Mapping[str, Quote] | None = None
        told: set[UUID] = set()
        retention_due = EPOCH
        due = self._now()  # the first tick comes at once
        while True:
            term.check()
            ticks = 0
            try:
                now = self._now()
                if book is None or self._calendar.current(now) is not None:
                    book = await self._positions(term, book, self._grid.session(now).date)
                if quotes is None:
                    quotes = await self._store.quotes()
                    if self._standing is not None:
                        self._standing.remember(await self._store.refusals(), quotes)
                now = self._now()  # looked at anew: to load a million portfolios takes half a minute
                session = self._calendar.current(now)
                if session is not None and session.date == book.day:
                    written = await self._tick(term, session, self._grid.slot(now), book, quotes, told)
                    if written is not None:
                        self._outage.over({"lease": term.name, "token": term.token})
                        quotes, ticks = written, 1
                    if now >= retention_due:
                        retention_due = await self._drop_old_days(term, session)
            except StoreError as error:
                quotes, ticks = None, 1  # of a tick in lanes, the quotes may be there and the rest not
                self._store.writes.of(term.name).failed()
                self._metrics.ticks.labels("failed").inc()
                self._outage.met(error, {"lease": term.name, "token": term.token})
            self._metrics.ticks.labels("skipped").inc(self._grid.left_out(due, self._now(), ticks))
            due = await self._sleep_until_next_tick()

    async def _positions(self, term: Term, book: Book | None, day: date) -> Book:
        """The positions of that date as they are now. All are read at the start of a term, then what has changed."""
        started = said = time.perf_counter()

        def progress(done: int, total: int) -> None:
            nonlocal said
            term.check()
            self.loading = Loading(done, total)
            if time.perf_counter() - said > SAY_EVERY:
                said = time.perf_counter()
                logger.info("loading positions: %d of %d portfolios", done, total, extra={"lease": term.name})

        try:
            if book is not None:
                return await self._store.update_positions(book, day, progress)
            book = await self._store.load_positions(day, progress)
        finally:
            self.loading = None
        seconds = time.perf_counter() - started
        logger.info("positions of %d portfolios loaded in %.1f s", len(book), seconds, extra={"lease": term.name})
        return book

    async def _tick(
        self,
        term: Term,
        session: Session,
        slot: datetime,
        book: Book,
        before: Mapping[str, Quote],
        told: set[UUID],
    ) -> Mapping[str, Quote] | None:
        """Value every portfolio; returns the quotes for the next tick to carry forward.

        `told` are the portfolios whose values were reported as too wide in this term.
        None, and nothing is written, if the session ended while prices were asked for: a value of after the close is
        none of the session.
        """
        started = time.perf_counter()
        symbols = book.held()
        if self._standing is not None:
            await line_up(self._standing, book, symbols)
        term.check()
        fresh = await self._latest(symbols)
        term.check()
        as_of = self._now()
        if as_of not in session:
            return None
        answers = {symbol: quoted(price, session, before.get(symbol), as_of) for symbol, price in fresh.items()}
        changed = {symbol: quote for symbol, quote in answers.items() if quote is not before.get(symbol)}
        report_jumps(
            {symbol: quote.price for symbol, quote in before.items()},
            {symbol: quote.price for symbol, quote in changed.items()},
        )
        quotes = {**before, **changed}
        marks = {
            symbol: Mark(
                quote.price,
                quote.at,
                stale=symbol not in answers or not is_fresh(quote.at, as_of),
                open=quote.open if priced_in(quote, session) else quote.price,
            )
            for symbol, quote in quotes.items()
        }
        values = await asyncio.to_thread(value_all, book.blocks, Marks.of(book.symbols, marks))
        refusals = self._standing.changes() if self._standing is not None else {}
        report_too_wide(values, told)
        term.check()
        await self._write(term, session, slot, as_of, values, changed.values(), refusals, book.place.snapshot)
        if self._standing is not None:
            self._standing.kept(refusals)
        self.last_run = as_of
        self._report(len(book), symbols, marks, answers.keys(), time.perf_counter() - started)
        return quotes

    async def _write(
        self,
        term: Term,
        session: Session,
        slot: datetime,
        as_of: datetime,
        values: Values,
        quotes: Collection[Quote],
        refusals: Refusals,
        seen: str,
    ) -> None:
        lanes = min(-(-len(values) // PORTFOLIOS_A_LANE), LANES) or 1
        parts = [values.part(lane, lanes) for lane in range(lanes)]
        if lanes > 1:  # or each would wait for the other to have made it
            async with self._store.fenced(term.name, term.token, term.holder) as first:
                await first.make_intraday(session.date)

        async def write(lane: FencedWrites, part: Values) -> None:
            if lane is writes[-1]:  # committed first: no value without the prices that it is made of
                await lane.quotes(quotes)
                await lane.refusals(refusals)
            await lane.live(session.date, as_of)
            if len(part):
                await lane.intraday(session.date, slot, *self._turn(part, self._points_a_tick // lanes))

        async with self._store.fenced_lanes(term.name, term.token, term.holder, parts) as writes:
            if lanes > 1:
                await writes[0].hold_off_deletions()  # it is committed last
            await side_by_side(write(*lane) for lane in zip(writes, parts, strict=True))
            await writes[0].forget_changes(seen)
            await writes[0].notify(as_of)
        self._written += 1

    def _turn(self, values: Values, points: int) -> tuple[UUID, UUID]:
        """The first and the last of the portfolios whose course gets a point at this tick: all, if `points` will do.

        Else they take turns, neighbours together, of `LONGEST_TURN` ticks at most. Turns go by the ticks that were
        written and not by the clock: where each second tick is left out, half of the portfolios would have no course.
        """
        turns = min(-(-len(values) // max(points, 1)), LONGEST_TURN)
        first, last = uuids(values.part(self._written % turns, turns).ids[[0, -1]])
        return first, last

    async def _latest(self, symbols: Collection[str]) -> dict[str, Price]:
        """The prices that the source gives now; none if it fails."""
        if not symbols:
            return {}
        try:
            async with asyncio.timeout(self._price_limit):
                answer = await self._prices.latest(symbols)
        except PricesUnavailable as error:
            reason = str(error)
        except TimeoutError:
            reason = f"no answer in {self._price_limit:g} s"
        else:
            self._prices_outage.over()
            found = usable(answer.values())
            return {symbol: found[symbol] for symbol in symbols if symbol in found}
        self._metrics.prices_failed.inc()
        self._prices_outage.met(reason)
        return {}

    async def _drop_old_days(self, term: Term, session: Session) -> datetime:
        """Returns when to do it again: once a session; if it fails, as when a reader is in the way, some time later.

        By the earlier of the machine's date and the database's: what a clock that is ahead drops is lost.
        """
        try:
            today = min(session.date, (await self._store.clock()).date())
            async with self._store.fenced(term.name, term.token, term.holder) as writes:
                dropped = await writes.drop_intraday(today - self._keep_days)
        except StoreError as error:
            self._retention_outage.met(error, {"lease": term.name})
            return self._now() + RETENTION_PAUSE
        self._retention_outage.over({"lease": term.name})
        if dropped:
            logger.info("dropped %d days of intraday values", dropped)
        return session.close

    async def _sleep_until_next_tick(self) -> datetime:
        """Returns when that is."""
        now = self._now()
        due = self._grid.next_tick(now)
        while now < due:
            await self._sleep(min((due - now).total_seconds(), LONGEST_SLEEP))
            now = self._now()
            due = min(due, self._grid.next_tick(now))  # a clock set back must not make the wait longer
        return due

    def _report(
        self,
        tracked: int,
        held: Collection[str],
        marks: Mapping[str, Mark],
        fresh: Collection[str],
        seconds: float,
    ) -> None:
        priced = sum(symbol in marks for symbol in held)
        self._metrics.ticks.labels("written").inc()
        self._metrics.tick_seconds.observe(seconds)
        self._metrics.tracked.set(tracked)
        self._metrics.held.set(len(held))
        self._metrics.stale.set(sum(symbol in marks and marks[symbol].stale for symbol in held))
        self._metrics.carried.set(priced - len(fresh))
        self._metrics.unpriced.set(len(held) - priced)
        logger.debug("tick: %d portfolios, %d prices, %.3f s", tracked, len(fresh), seconds)
