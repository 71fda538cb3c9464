"""The daily jobs: what each does for a session, and how a run gets from its claim to its end.

A run is worked off in chunks. Each chunk's rows and the run's cursor are committed together, under the fence; so
whoever takes a run over goes on where it stands, and every row is written once. A session's closes are committed before
its first chunk, so that a run that is taken over goes on with the same prices.

A symbol whose close no source has is valued at its last price before the close, and the row is stale.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from datetime import date, datetime, timedelta
from uuid import UUID

from service.clock import utc_now
from service.database.connection import side_by_side
from service.database.fenced_writes import FencedWrites
from service.database.position_reader import Progress, quietly
from service.database.store import Store
from service.market.calendar import Calendar, Session
from service.portfolio.crowds import line_up
from service.portfolio.positions import Book, uuids
from service.portfolio.records import Cursor, JobName, JobRun, Origin, Settle
from service.portfolio.split_suspects import report_jumps
from service.portfolio.valuation import Mark, Marks, report_too_wide, usable, value_block
from service.prices import Price, PriceSource, PricesUnavailable
from service.prices.standing import Refusals, Standing, standing_of
from service.work.term import Term
from service.work.timetable import due_at, last_sessions

logger = logging.getLogger(__name__)

KIND = "daily_eod"

SETTLE: dict[JobName, Settle] = {"eod": "none", "snapshot": "all", "reconstruction": "stale"}

WRITERS = 2
"""Of chunks, side by side: one brings its values to the server while the one before it writes."""

PRICE_LIMIT = 60.0
"""Seconds that the price source may take for a session's closes."""


class Jobs:
    """The three jobs, for any session.

    - `eod`: one row a portfolio at the session's close.
    - `snapshot`: every portfolio again, at the official closes: the row's next revision.
    - `reconstruction`: a row, marked as such, wherever one of the last `look_back` sessions has none; and the next
      revision of each stale one that has become better known.
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
        self._standing = standing_of(prices)
        self._calendar = calendar
        self._look_back = look_back
        self._chunk = chunk
        self._now = now

    async def run(
        self, job: JobName, session: Session, term: Term, progress: Progress = quietly, *, anew: bool = False
    ) -> int | None:
        """Run a job for a session, from where the run stands; returns the rows written, or None if it was done.

        `progress` is told of the portfolios done of one session, after each chunk. With `anew` a run that is done is
        run again, which writes what is missing, or what differs, and nothing twice.

        An `eod` that still has no answer of the source when the snapshot is due makes do with the prices that are
        known, unless it is run `anew`: better a stale row than none.

        Raises:
            PricesUnavailable: the source has no closes to give now for the sessions that the text names; whatever
                others the run looks after are done, and the next attempt looks after those.
            StoreError: the database failed; the run stands at its last chunk.
            StaleTerm, TermOver: the term is over; the next one goes on.
        """
        term.check()
        async with self._store.fenced(term.name, term.token, term.holder) as writes:
            run = await writes.claim(job, session.date, anew=anew)
        if run is None:
            return None
        late = self._now() >= due_at("snapshot", session)
        origin: Origin = "captured" if job == "eod" and not late else "reconstructed"
        makes_do = job == "eod" and late and not anew
        work = _Work(self._store, self._standing, term, job, session.date, origin, progress, makes_do=makes_do)
        rows = await self._fill_days(work, run, self.days(job, session))
        term.check()
        async with self._store.fenced(term.name, term.token, term.holder) as writes:
            await writes.end(job, session.date)
        return rows

    async def _fill_days(self, work: "_Work", run: JobRun, days: list[Session]) -> int:
        """Write the rows of those sessions that the run has not done; one without prices holds up no other."""
        rows, unpriced = 0, dict[date, PricesUnavailable]()
        for day in days:
            if run.cursor is not None and run.cursor.session_date == day.date:
                rows += await work.fill(day.date, await self._book(work, day.date, after=run.cursor.portfolio_id))
            elif run.cursor is None or run.cursor.session_date < day.date or day.date in run.skipped:
                book = await self._book(work, day.date, after=None)
                try:
                    await self._gather_closes(work, day, book)
                except PricesUnavailable as error:
                    await work.skip(day.date)
                    unpriced[day.date] = error
                else:
                    rows += await work.fill(day.date, book)
        if unpriced:
            raise PricesUnavailable("; ".join(f"{day}: {error}" for day, error in unpriced.items()))
        return rows

    def days(self, job: JobName, session: Session) -> list[Session]:
        """The sessions that the run looks after, oldest first: its own, and earlier ones still in the look-back.

        The look-back ends now, not at that session: catching up does not reach further back than it says.
        """
        if job != "reconstruction":
            return [session]
        in_look_back = last_sessions(self._calendar, self._calendar.last_closed(self._now()), self._look_back)
        return [day for day in in_look_back if day.date < session.date] + [session]

    async def book(self, job: JobName, day: date, after: UUID | None = None, progress: Progress = quietly) -> Book:
        """What the job has to value for the session of that date, one block for each chunk."""
        settle = SETTLE[job]
        return await self._store.opened_positions(
            day,
            after,
            without_row=None if settle == "all" else KIND,
            or_stale=settle == "stale",
            portfolios_a_block=self._chunk,
            progress=progress,
        )

    async def _book(self, work: "_Work", day: date, after: UUID | None) -> Book:
        work.term.check()
        return await self.book(work.job, day, after, work.reading)

    async def _gather_closes(self, work: "_Work", day: Session, book: Book) -> None:
        """Commit the closes that the day's rows are made from. The snapshot asks anew for those that are there."""
        wanted = symbols = book.held()
        if SETTLE[work.job] != "all":
            known = await self._store.closes(day.date, symbols)
            wanted = [symbol for symbol in symbols if symbol not in known or not known[symbol].is_official(day.date)]
        if self._standing is not None:
            self._standing.remember(await self._store.refusals(), await self._store.quotes())
            await line_up(self._standing, book, wanted)
        try:
            closes = await self._closes(wanted, day.date)
        except PricesUnavailable as error:
            if not work.makes_do:
                raise
            logger.warning("no closes for %s, its rows are made from the last known prices: %s", day.date, error)
            closes = []
        found = {price.symbol: price.price for price in closes}
        before = await self._store.closes(day.date - timedelta(days=1), list(found))
        report_jumps({symbol: close.close for symbol, close in before.items()}, found, f"closes of {day.date}")
        await work.keep_closes(day, wanted, closes)

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
        self,
        store: Store,
        standing: Standing | None,
        term: Term,
        job: JobName,
        session_date: date,
        origin: Origin,
        progress: Progress,
        *,
        makes_do: bool,
    ) -> None:
        self._store = store
        self._standing = standing
        self.term = term
        self.job = job
        self._session_date = session_date
        self._origin = origin
        self._progress = progress
        self.makes_do = makes_do

    def reading(self, _done: int, _total: int) -> None:
        """Between two blocks of positions."""
        self.term.check()

    async def keep_closes(self, day: Session, symbols: list[str], closes: list[Price]) -> None:
        """Commit a session's closes, of those symbols, what was refused, and that its portfolios come next."""
        self.term.check()
        async with self._store.fenced(self.term.name, self.term.token, self.term.holder) as writes:
            await writes.closes(day.date, day.close, symbols, closes)
            refusals = await self._keep_refusals(writes)
            await writes.advance(self.job, self._session_date, Cursor(day.date, None))
        self._kept(refusals)

    async def skip(self, day: date) -> None:
        """Commit that the session of that date is left for another attempt."""
        self.term.check()
        async with self._store.fenced(self.term.name, self.term.token, self.term.holder) as writes:
            refusals = await self._keep_refusals(writes)
            await writes.skip(self.job, self._session_date, day)
        self._kept(refusals)

    async def _keep_refusals(self, writes: FencedWrites) -> Refusals:
        refusals = self._standing.changes() if self._standing is not None else {}
        await writes.refusals(refusals)
        return refusals

    def _kept(self, refusals: Refusals) -> None:
        if self._standing is not None:
            self._standing.kept(refusals)

    async def fill(self, day: date, book: Book) -> int:
        """Write the rows of that date for the book's portfolios, a chunk for each block; returns how many.

        The chunks are committed in their order, for the cursor says that all before it are there; one that fails takes
        the one that is being written before it along.
        """
        self.term.check()
        closes = await self._store.closes(day, list(book.symbols))
        marks = {
            symbol: Mark(close.close, close.at, stale=not close.is_official(day), open=close.close)
            for symbol, close in closes.items()
        }
        by_number = Marks.of(book.symbols, marks)
        rows, done, total = 0, 0, len(book)
        chunks = enumerate(book.blocks)
        turns = [asyncio.Event() for _ in range(len(book.blocks) + 1)]
        turns[0].set()
        term = self.term.name, self.term.token, self.term.holder

        async def write() -> None:
            nonlocal rows, done
            for place, block in chunks:
                values = await asyncio.to_thread(value_block, block, by_number)
                report_too_wide(values)
                async with self._store.fenced(*term, values, turns[place].wait) as writes:
                    self.term.check()
                    written = await writes.history(KIND, day, origin=self._origin, settle=SETTLE[self.job])
                    cursor = Cursor(day, uuids(block.ids[-1:])[0])
                    await writes.advance(self.job, self._session_date, cursor, written)
                turns[place + 1].set()
                rows += written.rows
                done += len(block)
                self._progress(done, total)

        await side_by_side(write() for _ in range(WRITERS))
        return rows
