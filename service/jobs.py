"""The daily jobs: what each does for a session, and how a run gets from its claim to its end.

A run is worked off in chunks. Each chunk's rows and the run's cursor are committed together, under the fence; so
whoever takes a run over goes on where it stands, and every row is written once. A session's closes are committed before
its first chunk, so that a run that is taken over goes on with the same prices.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from datetime import date, datetime
from uuid import UUID

from service.market import Calendar, Session
from service.prices import Price, PriceSource, PricesUnavailable
from service.records import Cursor, JobName, Origin
from service.store import Store
from service.term import Term
from service.timetable import due_at, last_sessions, utc_now
from service.valuation import Mark, usable, value_of

logger = logging.getLogger(__name__)

KIND = "daily_eod"

PRICE_LIMIT = 60.0
"""Seconds that the price source may take for a session's closes."""


class Jobs:
    """The three jobs, for any session.

    - `eod`: one row a portfolio at the session's close.
    - `snapshot`: every portfolio again, at the official closes: the row's next revision.
    - `reconstruction`: a row, marked as such, wherever one of the last `look_back` sessions has none.
    """

    def __init__(
        self,
        store: Store,
        prices: PriceSource,
        calendar: Calendar,
        *,
        look_back: int = 7,
        chunk: int = 1000,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self._prices = prices
        self._calendar = calendar
        self._look_back = look_back
        self._chunk = chunk
        self._now = now

    async def run(self, job: JobName, session: Session, term: Term) -> int | None:
        """Run a job for a session, from where the run stands; returns the rows written, or None if it was done.

        Raises:
            PricesUnavailable: the source has no closes to give now; the run stands where it was.
            StoreError: the database failed; the run stands at its last chunk.
            StaleTerm, TermOver: the term is over; the next one goes on.
        """
        term.check()
        async with self._store.fenced(term.name, term.token, term.holder) as writes:
            run = await writes.claim(job, session.date)
        if run is None:
            return None
        work = _Work(self._store, term, job, session.date, self._origin(job, session), self._chunk)
        rows = 0
        for day in self._days(job, session):
            if run.cursor is None or run.cursor.session_date < day.date:
                await self._gather_closes(work, day)
                rows += await work.fill(day.date, after=None)
            elif run.cursor.session_date == day.date:
                rows += await work.fill(day.date, after=run.cursor.portfolio_id)
        term.check()
        async with self._store.fenced(term.name, term.token, term.holder) as writes:
            await writes.end(job, session.date)
        return rows

    def _days(self, job: JobName, session: Session) -> list[Session]:
        """The sessions that the run looks after, oldest first: its own, and earlier ones still in the look-back.

        The look-back ends now, not at that session: catching up does not reach further back than it says.
        """
        if job != "reconstruction":
            return [session]
        in_look_back = last_sessions(self._calendar, self._calendar.last_closed(self._now()), self._look_back)
        return [day for day in in_look_back if day.date < session.date] + [session]

    def _origin(self, job: JobName, session: Session) -> Origin:
        """What a new row is marked as: only one made before its snapshot is due was captured at the close."""
        captured = job == "eod" and self._now() < due_at("snapshot", session)
        return "captured" if captured else "reconstructed"

    async def _gather_closes(self, work: "_Work", day: Session) -> None:
        """Commit the closes that the day's rows are made from. The snapshot asks anew for those that are there."""
        symbols = await self._store.symbols_to_value(day.date, kind=KIND, missing=not work.settle)
        if not work.settle:
            known = await self._store.closes(day.date, symbols)
            symbols = [symbol for symbol in symbols if symbol not in known or known[symbol].session_date != day.date]
        closes = await self._closes(symbols, day.date)
        await work.keep_closes(day, closes)

    async def _closes(self, symbols: Collection[str], day: date) -> list[Price]:
        if not symbols:
            return []
        try:
            async with asyncio.timeout(PRICE_LIMIT):
                answer = await self._prices.closes(symbols, day)
        except TimeoutError as error:
            raise PricesUnavailable(f"no closes in {PRICE_LIMIT:g} s") from error
        return list(usable(answer.values()).values())


class _Work:
    """The steps of one run under one term."""

    def __init__(self, store: Store, term: Term, job: JobName, session_date: date, origin: Origin, chunk: int) -> None:
        self._store = store
        self._term = term
        self._job = job
        self._session_date = session_date
        self._origin = origin
        self._chunk = chunk
        self.settle = job == "snapshot"

    async def keep_closes(self, day: Session, closes: list[Price]) -> None:
        """Commit a session's closes, and that its portfolios come next."""
        self._term.check()
        async with self._store.fenced(self._term.name, self._term.token, self._term.holder) as writes:
            await writes.closes(day.date, day.open, day.close, closes)
            await writes.advance(self._job, self._session_date, Cursor(day.date, None))

    async def fill(self, day: date, after: UUID | None) -> int:
        """Write the rows of that date for the portfolios after that one, chunk by chunk; returns how many."""
        rows = 0
        while True:
            self._term.check()
            holdings = await self._store.holdings_chunk(
                day, after, kind=KIND, missing=not self.settle, limit=self._chunk
            )
            if not holdings:
                return rows
            symbols = {symbol for held in holdings.values() for symbol, _ in held}
            closes = await self._store.closes(day, symbols)
            marks = {
                symbol: Mark(close.close, close.at, stale=close.session_date != day, open=close.close)
                for symbol, close in closes.items()
            }
            values = {portfolio_id: value_of(held, marks) for portfolio_id, held in holdings.items()}
            after = list(holdings)[-1]
            self._term.check()
            async with self._store.fenced(self._term.name, self._term.token, self._term.holder) as writes:
                written = await writes.history(KIND, day, values, origin=self._origin, settle=self.settle)
                await writes.advance(self._job, self._session_date, Cursor(day, after), written)
            rows += written
