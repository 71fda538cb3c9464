"""The daily jobs: what each does for a session, and how a run gets from its claim to its end.

A run is worked off in chunks. Each chunk's rows and the run's cursor are committed together, under the fence; so
whoever takes a run over goes on where it stands, and every row is written once. A session's closes are committed before
its first chunk, so that a run that is taken over goes on with the same prices.
"""

import asyncio
from collections.abc import Callable, Collection
from datetime import date, datetime
from uuid import UUID

from service.market import Calendar, Session
from service.position_reader import Progress
from service.positions import Book, uuids
from service.prices import Price, PriceSource, PricesUnavailable
from service.records import Cursor, JobName, Origin
from service.store import Store
from service.term import Term
from service.timetable import due_at, last_sessions, utc_now
from service.valuation import Mark, Marks, report_too_wide, usable, value_block

KIND = "daily_eod"

PRICE_LIMIT = 60.0
"""Seconds that the price source may take for a session's closes."""


def _quietly(_done: int, _total: int) -> None:
    """Progress that nobody asked about."""


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
        chunk: int = 20_000,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self._prices = prices
        self._calendar = calendar
        self._look_back = look_back
        self._chunk = chunk
        self._now = now

    async def run(
        self, job: JobName, session: Session, term: Term, progress: Progress = _quietly, *, anew: bool = False
    ) -> int | None:
        """Run a job for a session, from where the run stands; returns the rows written, or None if it was done.

        `progress` is told of the portfolios done of one session, after each chunk. With `anew` a run that is done is
        run again, which writes what is missing, or what differs, and nothing twice.

        Raises:
            PricesUnavailable: the source has no closes to give now; the run stands where it was.
            StoreError: the database failed; the run stands at its last chunk.
            StaleTerm, TermOver: the term is over; the next one goes on.
        """
        term.check()
        async with self._store.fenced(term.name, term.token, term.holder) as writes:
            run = await writes.claim(job, session.date, anew=anew)
        if run is None:
            return None
        work = _Work(self._store, term, job, session.date, self._origin(job, session), progress)
        rows = 0
        for day in self._days(job, session):
            if run.cursor is None or run.cursor.session_date < day.date:
                book = await self._book(work, day, after=None)
                await self._gather_closes(work, day, book.held())
                rows += await work.fill(day.date, book)
            elif run.cursor.session_date == day.date:
                rows += await work.fill(day.date, await self._book(work, day, after=run.cursor.portfolio_id))
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

    async def _book(self, work: "_Work", day: Session, after: UUID | None) -> Book:
        """What there is to value for a session, one block for each chunk."""
        work.term.check()
        return await self._store.opened_positions(
            day.date,
            after,
            without_row=None if work.settle else KIND,
            portfolios_a_block=self._chunk,
            progress=work.reading,
        )

    async def _gather_closes(self, work: "_Work", day: Session, symbols: list[str]) -> None:
        """Commit the closes that the day's rows are made from. The snapshot asks anew for those that are there."""
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

    def __init__(
        self, store: Store, term: Term, job: JobName, session_date: date, origin: Origin, progress: Progress
    ) -> None:
        self._store = store
        self.term = term
        self._job = job
        self._session_date = session_date
        self._origin = origin
        self._progress = progress
        self.settle = job == "snapshot"

    def reading(self, _done: int, _total: int) -> None:
        """Between two blocks of positions."""
        self.term.check()

    async def keep_closes(self, day: Session, closes: list[Price]) -> None:
        """Commit a session's closes, and that its portfolios come next."""
        self.term.check()
        async with self._store.fenced(self.term.name, self.term.token, self.term.holder) as writes:
            await writes.closes(day.date, day.open, day.close, closes)
            await writes.advance(self._job, self._session_date, Cursor(day.date, None))

    async def fill(self, day: date, book: Book) -> int:
        """Write the rows of that date for the book's portfolios, a chunk for each block; returns how many."""
        self.term.check()
        closes = await self._store.closes(day, list(book.symbols))
        marks = {
            symbol: Mark(close.close, close.at, stale=close.session_date != day, open=close.close)
            for symbol, close in closes.items()
        }
        by_number = Marks.of(book.symbols, marks)
        rows, done, total = 0, 0, len(book)
        for block in book.blocks:
            values = await asyncio.to_thread(value_block, block, by_number)
            report_too_wide(values)
            self.term.check()
            async with self._store.fenced(self.term.name, self.term.token, self.term.holder, values) as writes:
                written = await writes.history(KIND, day, origin=self._origin, settle=self.settle)
                cursor = Cursor(day, uuids(block.ids[-1:])[0])
                await writes.advance(self._job, self._session_date, cursor, written)
            rows += written
            done += len(block)
            self._progress(done, total)
        return rows
