"""The intraday tracker: while the market is open, the value of every portfolio at each tick of the clock's grid."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Never
from uuid import UUID

from service.database import StoreError
from service.market import Calendar, Session
from service.measures import Measures
from service.prices import Price, PriceSource, PricesUnavailable
from service.records import Quote
from service.store import Store
from service.term import Sleep, Term, take_up
from service.timetable import utc_now
from service.valuation import Holdings, Mark, quoted, usable, value_of

logger = logging.getLogger(__name__)

EPOCH = datetime.fromtimestamp(0, UTC)

LONGEST_SLEEP = 60.0
"""Seconds after which a sleeper looks at the clock again: it may have been set, or the machine suspended."""

PRICE_LIMIT = 10.0
"""Seconds that the price source may take; less where ticks are closer together."""


class Tracker:
    """Values every portfolio each `interval` seconds of a session, in one fenced transaction a tick.

    Ticks fall on multiples of the interval since the epoch, so that two leaders in a row keep one grid; the first tick
    of a term comes at once. A tick that is late because the one before took long is left out.

    A price that the source does not give is carried forward and marked stale; so is one older than `stale_after`.
    """

    def __init__(
        self,
        store: Store,
        prices: PriceSource,
        calendar: Calendar,
        measures: Measures,
        *,
        interval: float = 30.0,
        stale_after: timedelta = timedelta(minutes=15),
        keep_days: int = 30,
        now: Callable[[], datetime] = utc_now,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._store = store
        self._prices = prices
        self._calendar = calendar
        self._measures = measures
        self._interval = timedelta(seconds=interval)
        self._price_limit = min(interval, PRICE_LIMIT)
        self._stale_after = stale_after
        self._keep_days = timedelta(days=keep_days)
        self._now = now
        self._sleep = sleep
        self.last_run: datetime | None = None
        """When the last tick of this process was committed."""

    @property
    def next_run(self) -> datetime:
        """When the leader's next tick is due, whoever leads."""
        return self._tick_after(self._now())

    async def run(self, term: Term) -> Never:
        """Track until the term is over. A price source or a database that fails costs ticks, not the term.

        Raises:
            StaleTerm: a newer term has taken the lease up in the database.
            TermOver: the term said so.
        """
        await take_up(self._store, term, self._sleep)
        quotes: Mapping[str, Quote] | None = None
        tidied: Session | None = None
        while True:
            term.check()
            now = self._now()
            session = self._calendar.current(now)
            if session is not None:
                try:
                    if quotes is None:
                        quotes = await self._store.quotes()
                    quotes = await self._tick(term, session, self._slot(now), quotes)
                    if tidied != session:
                        tidied = session
                        await self._drop_old_days(term, session)
                except StoreError as error:
                    self._measures.ticks.labels("failed").inc()
                    logger.warning("tick failed: %s", error, extra={"lease": term.name, "token": term.token})
            await self._sleep_until_next_tick()

    async def _tick(
        self, term: Term, session: Session, slot: datetime, before: Mapping[str, Quote]
    ) -> Mapping[str, Quote]:
        """Value every portfolio; returns the quotes for the next tick to carry forward."""
        started = time.perf_counter()
        holdings = await self._store.holdings(session.date)
        symbols = {symbol for held in holdings.values() for symbol, _ in held}
        term.check()
        fresh = await self._latest(symbols)
        term.check()
        as_of = self._now()
        changed = {symbol: quoted(price, session.date, before.get(symbol)) for symbol, price in fresh.items()}
        quotes = {**before, **changed}
        marks = {
            symbol: Mark(
                quote.price,
                quote.at,
                stale=symbol not in changed or as_of - quote.at > self._stale_after,
                open=quote.open if quote.session_date == session.date else quote.price,
            )
            for symbol, quote in quotes.items()
        }
        values = {portfolio_id: value_of(held, marks) for portfolio_id, held in holdings.items()}
        term.check()
        async with self._store.fenced(term.name, term.token, term.holder) as writes:
            await writes.quotes(changed.values())
            await writes.intraday(session.date, slot, values)
            await writes.live(session.date, as_of, values)
        self.last_run = as_of
        self._report(holdings, symbols, quotes.keys(), changed.keys(), time.perf_counter() - started)
        return quotes

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
            found = usable(answer.values())
            return {symbol: found[symbol] for symbol in symbols if symbol in found}
        self._measures.prices_failed.inc()
        logger.warning("prices are unavailable, the last known ones are carried forward: %s", reason)
        return {}

    async def _drop_old_days(self, term: Term, session: Session) -> None:
        async with self._store.fenced(term.name, term.token, term.holder) as writes:
            dropped = await writes.drop_intraday(session.date - self._keep_days)
        if dropped:
            logger.info("dropped %d days of intraday values", dropped)

    async def _sleep_until_next_tick(self) -> None:
        now = self._now()
        due = self._tick_after(now)
        while now < due:
            await self._sleep(min((due - now).total_seconds(), LONGEST_SLEEP))
            now = self._now()
            due = min(due, self._tick_after(now))  # a clock set back must not make the wait longer

    def _slot(self, now: datetime) -> datetime:
        return EPOCH + (now - EPOCH) // self._interval * self._interval

    def _tick_after(self, now: datetime) -> datetime:
        """The first place on the grid that is later than `now` and in a session."""
        due = self._slot(now) + self._interval
        if self._calendar.current(due) is None:
            opening = self._calendar.next_open(now).open
            due = max(due, self._slot(opening + self._interval - timedelta.resolution))
        return due

    def _report(
        self,
        holdings: Mapping[UUID, Holdings],
        held: Collection[str],
        known: Collection[str],
        fresh: Collection[str],
        seconds: float,
    ) -> None:
        priced = sum(symbol in known for symbol in held)
        self._measures.ticks.labels("written").inc()
        self._measures.tick_seconds.observe(seconds)
        self._measures.tracked.set(len(holdings))
        self._measures.carried.set(priced - len(fresh))
        self._measures.unpriced.set(len(held) - priced)
        logger.debug("tick: %d portfolios, %d prices, %.3f s", len(holdings), len(fresh), seconds)
