"""The intraday tracker: during a session, it values every portfolio at each tick of the schedule."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Never
from uuid import UUID

import numpy as np

from service.clock import utc_now
from service.database.connection import StoreError, run_concurrently
from service.database.fenced_writes import FencedWrites
from service.database.store import Store
from service.market.calendar import Calendar, Session
from service.market.tick_schedule import EPOCH, TickSchedule
from service.outage import Outage
from service.portfolio.crowds import set_trial_order
from service.portfolio.freshness import is_fresh
from service.portfolio.positions import Block, Book, Ids, divided, uuids
from service.portfolio.quotes import priced_in, updated_quote, valid_prices
from service.portfolio.records import Loading, Quote
from service.portfolio.split_suspects import report_split_suspects
from service.portfolio.valuation import Mark, Marks, Values, report_overflow, value_block
from service.prices import LATEST_TIMEOUT, Price, PriceSource, PricesUnavailable
from service.prices.standing import Refusals, standing_of
from service.work.metrics import WorkMetrics
from service.work.price_watch import PriceWatch
from service.work.term import LONGEST_SLEEP, Sleep, Term, claim_fence

logger = logging.getLogger(__name__)

PORTFOLIOS_PER_LANE, MAX_LANES = 25_000, 2
"""Maximum number of portfolios for which a tick uses one transaction, and the maximum number of parallel transactions.
The database uses one processor for each transaction."""

POINTS_PER_TICK, MAX_TURNS = 20_000, 10
"""Maximum number of portfolios that all get an intraday point at every tick, and the maximum number of turns.

If there are more portfolios, they take turns, so that each gets a point at least every `MAX_TURNS` ticks: every five
minutes by default. A million points every 30 seconds are too many for a database.
"""

RETENTION_PAUSE = timedelta(minutes=10)
"""Pause after a failed attempt to drop old days. Each attempt blocks readers of intraday points for a moment."""

PROGRESS_LOG_INTERVAL = 5.0
"""Seconds between two log lines about the progress of loading."""


class Tracker:
    """Values every portfolio each `interval` seconds of a session, in one fenced transaction a tick.

    A tick of many portfolios uses up to `MAX_LANES` transactions.

    Ticks are at multiples of the interval since the epoch, so that consecutive leaders keep the same schedule. The
    first tick of a term comes at once. A tick is skipped if the one before takes too long.

    Positions are loaded when a term begins, whether or not the market is open, and updated at each tick. Each portfolio
    gets an intraday point at each tick or, if there are more than `points_per_tick` portfolios, in turns.

    If the source gives no price for a symbol, the symbol's last price is carried forward and marked stale. A price that
    is too old or from the future (see `is_fresh`) is stale too. If the source gives an older price than before, the
    newer price stays, and only its age can make it stale.
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
        points_per_tick: int = POINTS_PER_TICK,
        now: Callable[[], datetime] = utc_now,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._store = store
        self._prices = prices
        self._standing = standing_of(prices)
        self._calendar = calendar
        self._schedule = TickSchedule(calendar, timedelta(seconds=interval))
        self._metrics = metrics
        self._latest_timeout = min(interval, LATEST_TIMEOUT)
        self._keep_days = timedelta(days=keep_days)
        self._points_per_tick = points_per_tick
        self._now = now
        self._sleep = sleep
        self._outage = Outage(logger, "a tick failed, others may fail too: %s", "ticks are written again")
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
        self._written = self._schedule.slot_number(now())
        """Slot number when this object was created, plus the number of ticks written since then. The sum determines
        which portfolios get a point."""
        self.last_run: datetime | None = None
        """Time of this process's last committed tick."""
        self.price_watch = PriceWatch()
        """The prices of this process's last term."""
        self.loading: Loading | None = None
        """Progress of loading positions; None unless positions are being loaded."""

    @property
    def next_run(self) -> datetime:
        """Due time of the leader's next tick, on leaders and followers."""
        return self._schedule.next_tick(self._now())

    async def run(self, term: Term) -> Never:
        """Track until the term is over. Continue at the next tick after a failure of the price source or the database.

        Raises:
            StaleTerm: a newer term has claimed the fence.
            TermOver: the term is over.
        """
        self.price_watch = PriceWatch()
        await claim_fence(self._store, term, self._sleep)
        fields = {"lease": term.name, "token": term.token}
        writes = self._store.writes.of(term.name)
        book: Book | None = None
        quotes: Mapping[str, Quote] | None = None
        already_reported: set[UUID] = set()
        retention_due = EPOCH
        due = self._now()  # the first tick comes at once
        while True:
            term.check()
            ticks = 0
            try:
                now = self._now()
                is_open = self._calendar.current(now) is not None
                if is_open:
                    writes.due()  # before the reads, because a read that hangs delays the tick's write
                if book is None or is_open:
                    book = await self._positions(term, book, self._schedule.session(now).date)
                if quotes is None:
                    quotes = await self._store.quotes()
                    if self._standing is not None:
                        self._standing.remember(await self._store.refusals(), quotes)
                now = self._now()  # read again: loading many portfolios takes seconds
                session = self._calendar.current(now)
                written = None
                if session is not None and session.date == book.day:
                    written = await self._tick(term, session, self._schedule.slot(now), book, quotes, already_reported)
                    if written is not None:
                        self._outage.recovered(fields | {"event": "ticks_recovered"})
                        quotes, ticks = written, 1
                    if now >= retention_due:
                        retention_due = await self._drop_old_days(term, session)
                if written is None:
                    writes.cleared()  # this tick had nothing to write
            except StoreError as error:
                quotes, ticks = None, 1  # some lanes of the tick may be committed, and the quotes with them
                writes.failed()
                self._metrics.ticks.labels("failed").inc()
                self._outage.failed(error, fields | {"event": "ticks_failed"})
            self._metrics.ticks.labels("skipped").inc(self._schedule.missed_ticks(due, self._now(), ticks))
            due = await self._sleep_until_next_tick(term)

    async def _positions(self, term: Term, book: Book | None, day: date) -> Book:
        """The positions of that date: loaded at the start of a term, and updated from the changes after that."""
        started = logged_at = time.perf_counter()
        fields = {"lease": term.name, "token": term.token}

        def progress(done: int, total: int) -> None:
            nonlocal logged_at
            term.check()
            self.loading = Loading(done, total)
            if time.perf_counter() - logged_at > PROGRESS_LOG_INTERVAL:
                logged_at = time.perf_counter()
                logger.info("loading positions: %d of %d portfolios", done, total, extra=fields)

        try:
            if book is not None:
                return await self._store.update_positions(book, day, progress)
            book = await self._store.load_positions(day, progress)
        finally:
            self.loading = None
        seconds = time.perf_counter() - started
        loaded = {"event": "positions_loaded", "portfolios": len(book), "seconds": round(seconds, 3)}
        logger.info("positions of %d portfolios loaded in %.1f s", len(book), seconds, extra=fields | loaded)
        return book

    async def _tick(
        self,
        term: Term,
        session: Session,
        slot: datetime,
        book: Book,
        before: Mapping[str, Quote],
        already_reported: set[UUID],
    ) -> Mapping[str, Quote] | None:
        """Value every portfolio; returns the quotes that the next tick carries forward.

        `already_reported` are the portfolios whose overflow was reported in this term.

        Returns None, and writes nothing, if the session ended while the source was asked: a value from after the close
        does not belong to the session.
        """
        started = time.perf_counter()
        symbols = book.held()
        if self._standing is not None:
            await set_trial_order(self._standing, book, symbols)
        term.check()
        fresh = await self._latest(symbols)
        term.check()
        as_of = self._now()
        if as_of not in session:
            return None
        answers = {symbol: updated_quote(price, session, before.get(symbol), as_of) for symbol, price in fresh.items()}
        changed = {symbol: quote for symbol, quote in answers.items() if quote is not before.get(symbol)}
        report_split_suspects(
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
        refusals = self._standing.changes() if self._standing is not None else {}
        by_number = Marks.of(book.symbols, marks)
        overflowing = await self._write(term, session, slot, as_of, book, by_number, changed.values(), refusals)
        report_overflow(overflowing, already_reported)
        if self._standing is not None:
            self._standing.saved(refusals)
        self.last_run = as_of
        self._report(len(book), symbols, marks, answers.keys(), time.perf_counter() - started)
        return quotes

    async def _write(
        self,
        term: Term,
        session: Session,
        slot: datetime,
        as_of: datetime,
        book: Book,
        marks: Marks,
        quotes: Collection[Quote],
        refusals: Refusals,
    ) -> Ids:
        """Value and write every portfolio; returns the portfolios that overflow.

        Each lane values one block while the server receives the block before it.
        """
        lanes = min(-(-len(book) // PORTFOLIOS_PER_LANE), MAX_LANES) or 1
        parts = divided(book.blocks, lanes)
        overflowing = [np.empty(0, "S16")]
        # Create a missing partition now, so that no lane waits for another lane to create it. If it exists, commit
        # nothing: a commit before each tick would hide that the ticks fail.
        if lanes > 1 and not await self._store.has_intraday(session.date):
            async with self._store.fenced(term) as first:
                await first.make_intraday(session.date)

        async def valued(part: Sequence[Block]) -> AsyncIterator[Values]:
            for block in part:
                values = await asyncio.to_thread(value_block, block, marks)
                overflowing.append(values.overflowing)
                yield values

        async def write(lane: FencedWrites, part: Sequence[Block]) -> None:
            if lane is writes[-1]:  # the last lane is committed first, so no value is committed before its price
                await lane.quotes(quotes)
                await lane.refusals(refusals)
            await lane.live(session.date, as_of)
            if part:
                await lane.intraday(session.date, slot, *self._portfolios_in_turn(part, self._points_per_tick // lanes))

        async with self._store.fenced_lanes(term, [valued(part) for part in parts]) as writes:
            term.check()
            if lanes > 1:
                await writes[0].block_deletions()  # the first lane is committed last
            await run_concurrently(write(*lane) for lane in zip(writes, parts, strict=True))
            await writes[0].forget_changes(book.checkpoint.snapshot)
            await writes[0].notify(as_of)
        self._written += 1
        return np.concatenate(overflowing)

    def _portfolios_in_turn(self, part: Sequence[Block], points: int) -> tuple[UUID, UUID]:
        """The first and the last of the portfolios that get a point at this tick.

        If `points` is too small for all portfolios, groups of adjacent portfolios take turns, in at most `MAX_TURNS`
        ticks. A turn depends on the number of ticks written and not on the clock. If it depended on the clock and every
        second tick were skipped, half of the portfolios would get no points.
        """
        turns = min(-(-sum(map(len, part)) // max(points, 1)), MAX_TURNS)
        in_turn = divided(part, turns)[self._written % turns]
        (first,), (last,) = uuids(in_turn[0].ids[:1]), uuids(in_turn[-1].ids[-1:])
        return first, last

    async def _latest(self, symbols: Collection[str]) -> dict[str, Price]:
        """The source's latest prices; none if the source fails."""
        if not symbols:
            return {}
        try:
            async with asyncio.timeout(self._latest_timeout):
                answer = await self._prices.latest(symbols)
        except PricesUnavailable as error:
            reason = str(error)
        except TimeoutError:
            reason = f"no answer in {self._latest_timeout:g} s"
        else:
            if answer:  # an empty answer may come without a request, while new symbols wait for their turn
                self._prices_outage.recovered({"event": "prices_recovered"})
            found = valid_prices(answer.values())
            return {symbol: found[symbol] for symbol in symbols if symbol in found}
        self._metrics.prices_failed.inc()
        self.price_watch.failed(reason, self._now())
        self._prices_outage.failed(reason, {"event": "prices_failed"})
        return {}

    async def _drop_old_days(self, term: Term, session: Session) -> datetime:
        """Drop old days; returns when to do it again: in the next session, or after a pause if it failed.

        Days that are dropped because of a wrong clock are lost. So the age of a day counts from the earlier of this
        machine's date and the database's.
        """
        try:
            today = min(session.date, (await self._store.clock()).date())
            async with self._store.fenced(term) as writes:
                dropped = await writes.drop_intraday(today - self._keep_days)
        except StoreError as error:
            self._retention_outage.failed(error, {"lease": term.name})
            return self._now() + RETENTION_PAUSE
        self._retention_outage.recovered({"lease": term.name})
        if dropped:
            logger.info("dropped %d days of intraday values", dropped)
        return session.close

    async def _sleep_until_next_tick(self, term: Term) -> datetime:
        """Sleep until the next tick; returns its due time. While the market is closed no write is due."""
        now = self._now()
        due = self._schedule.next_tick(now)
        while now < due:
            await self._sleep(min((due - now).total_seconds(), LONGEST_SLEEP))
            now = self._now()
            if self._calendar.current(now) is None:
                self._store.writes.of(term.name).cleared()
            due = min(due, self._schedule.next_tick(now))  # a clock that was set back must not extend the wait
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
        self.price_watch.counted(len(held) - priced, len(held), self._now())
        logger.debug("tick: %d portfolios, %d prices, %.3f s", tracked, len(fresh), seconds)
