"""The daily jobs: the rows that each job writes for a session, and the steps of a run from its claim to its end.

A run writes its rows in chunks. Each chunk's rows and the run's cursor are committed together, under the fence. So the
next worker of a run continues at the cursor, and every row is written once. A session's closes are committed before its
first chunk, so that the next worker uses the same prices. A rerun begins without the cursor, because the closes may
have changed.

If the source does not have a symbol's close, the symbol is valued at its last price before the close, and the row is
stale.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from datetime import date, datetime, timedelta
from uuid import UUID

from service.clock import utc_now
from service.database.connection import run_concurrently
from service.database.fenced_writes import FencedWrites
from service.database.position_reader import Progress, no_progress
from service.database.store import Store
from service.market.calendar import Calendar, Session
from service.portfolio.crowds import set_trial_order
from service.portfolio.positions import Book, uuids
from service.portfolio.quotes import valid_prices
from service.portfolio.records import Cursor, JobName, JobRun, Origin, Overwrite
from service.portfolio.split_suspects import report_split_suspects
from service.portfolio.valuation import Mark, Marks, report_overflow, value_block
from service.prices import CLOSES_TIMEOUT, Price, PriceSource, PricesUnavailable
from service.prices.standing import Refusals, Standing, standing_of
from service.work.backlog import LOOK_BACK
from service.work.run_log import Attempt, RunLog
from service.work.term import Term
from service.work.timetable import due_at, last_sessions

logger = logging.getLogger(__name__)

KIND = "daily_eod"

OVERWRITE: dict[JobName, Overwrite] = {"eod": "none", "snapshot": "all", "reconstruction": "stale"}

WRITERS = 2
"""Number of chunks in parallel: one chunk's values are copied to the server while the previous chunk is written."""


class Jobs:
    """The three daily jobs, for any session.

    - `eod`: one row for each portfolio at the session's close.
    - `snapshot`: every portfolio's row at the official closes. A row that changes or becomes settled gets the next
      revision.
    - `reconstruction`: for each of the last `look_back` sessions, a row, marked reconstructed, for each portfolio that
      has none; and the next revision of each stale row for which better prices exist.
    """

    def __init__(
        self,
        store: Store,
        prices: PriceSource,
        calendar: Calendar,
        *,
        look_back: int = LOOK_BACK,
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
        self._log = RunLog()

    async def run(
        self,
        job: JobName,
        session: Session,
        term: Term,
        progress: Progress = no_progress,
        *,
        rerun: bool = False,
        stale_prices: bool = True,
    ) -> int | None:
        """Run a job for a session, from the run's cursor; returns the rows written, or None if the run was done.

        Args:
            job: the name of the job.
            session: the session that the run is for.
            term: the term that claims the run.
            progress: called after each chunk with the number of a session's portfolios that are done, and their total.
            rerun: begin the run again, without its cursor and even if it is done. The rerun adds missing rows and, as
                far as `OVERWRITE` allows, overwrites rows whose values differ.
            stale_prices: from the time at which the snapshot is due, let an `eod` use the last known prices if the
                source still has no closes, because a stale row is better than none.

        Raises:
            PricesUnavailable: the source has no closes for the sessions that the text names. The other sessions of the
                run are done; the next attempt tries the named sessions again.
            StoreError: the database failed. The cursor stands after the last committed chunk.
            StaleTerm, TermOver: the term is over. The next term continues the run.
        """
        term.check()
        async with self._store.fenced(term) as writes:
            run = await writes.claim(job, session.date, rerun=rerun)
        if run is None:
            return None
        late = self._now() >= due_at("snapshot", session)
        origin: Origin = "captured" if job == "eod" and not late else "reconstructed"
        accept_stale_prices = job == "eod" and late and stale_prices
        attempt = _JobAttempt(
            self._store,
            self._standing,
            term,
            job,
            session.date,
            origin,
            progress,
            accept_stale_prices=accept_stale_prices,
        )
        with self._log.attempt(run, term) as logged:
            await self._fill_days(attempt, run, self.days(job, session), logged)
            term.check()
            async with self._store.fenced(term) as writes:
                await writes.end(job, session.date)
        return logged.rows

    async def _fill_days(self, attempt: "_JobAttempt", run: JobRun, days: list[Session], logged: Attempt) -> None:
        """Write the rows of the sessions that the run has not done. A session without prices does not stop the rest."""
        unpriced = dict[date, PricesUnavailable]()
        for day in days:
            if run.cursor is not None and run.cursor.session_date == day.date:
                rest = await self._book(attempt, day.date, after=run.cursor.portfolio_id)
                logged.rows += await attempt.fill(day.date, rest)
            elif run.cursor is None or run.cursor.session_date < day.date or day.date in run.skipped:
                book = await self._book(attempt, day.date, after=None)
                try:
                    await self._gather_closes(attempt, day, book)
                except PricesUnavailable as error:
                    await attempt.skip(day.date)
                    unpriced[day.date] = error
                else:
                    logged.rows += await attempt.fill(day.date, book)
        if unpriced:
            raise PricesUnavailable("; ".join(f"{day}: {error}" for day, error in unpriced.items()))

    def days(self, job: JobName, session: Session) -> list[Session]:
        """The sessions of a run, oldest first: its own, and for a reconstruction the earlier ones in the look-back.

        The look-back counts from now and not from the run's session, so a late run does not reach further back.
        """
        if job != "reconstruction":
            return [session]
        in_look_back = last_sessions(self._calendar, self._calendar.last_closed(self._now()), self._look_back)
        return [day for day in in_look_back if day.date < session.date] + [session]

    async def book(self, job: JobName, day: date, after: UUID | None = None, progress: Progress = no_progress) -> Book:
        """The portfolios that the job has to value for the session of that date, one block for each chunk."""
        overwrite = OVERWRITE[job]
        return await self._store.opened_positions(
            day,
            after,
            without_row=None if overwrite == "all" else KIND,
            or_stale=overwrite == "stale",
            portfolios_per_block=self._chunk,
            progress=progress,
        )

    async def _book(self, attempt: "_JobAttempt", day: date, after: UUID | None) -> Book:
        attempt.term.check()
        return await self.book(attempt.job, day, after, attempt.reading)

    async def _gather_closes(self, attempt: "_JobAttempt", day: Session, book: Book) -> None:
        """Commit the closes for the day's rows. The snapshot asks the source again even for known closes."""
        wanted = symbols = book.held()
        if OVERWRITE[attempt.job] != "all":
            known = await self._store.closes(day.date, symbols)
            wanted = [symbol for symbol in symbols if symbol not in known or not known[symbol].is_official(day.date)]
        if self._standing is not None:
            self._standing.remember(await self._store.refusals(), await self._store.quotes())
            await set_trial_order(self._standing, book, wanted)
        try:
            closes = await self._closes(wanted, day.date)
        except PricesUnavailable as error:
            if not attempt.accept_stale_prices:
                raise
            logger.warning("no closes for %s, its rows use the last known prices: %s", day.date, error)
            closes = []
        found = {price.symbol: price.price for price in closes}
        before = await self._store.closes(day.date - timedelta(days=1), list(found))
        report_split_suspects({symbol: close.close for symbol, close in before.items()}, found, f"closes of {day.date}")
        await attempt.write_closes(day, wanted, closes)

    async def _closes(self, symbols: Collection[str], day: date) -> list[Price]:
        if not symbols:
            return []
        try:
            async with asyncio.timeout(CLOSES_TIMEOUT):
                answer = await self._prices.closes(symbols, day)
        except TimeoutError as error:
            raise PricesUnavailable(f"no closes in {CLOSES_TIMEOUT:g} s") from error
        return list(valid_prices(answer.values()).values())


class _JobAttempt:
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
        accept_stale_prices: bool,
    ) -> None:
        self._store = store
        self._standing = standing
        self.term = term
        self.job = job
        self._session_date = session_date
        self._origin = origin
        self._progress = progress
        self.accept_stale_prices = accept_stale_prices

    def reading(self, _done: int, _total: int) -> None:
        """Check the term between two blocks of positions."""
        self.term.check()

    async def write_closes(self, day: Session, symbols: list[str], closes: list[Price]) -> None:
        """Commit a session's closes and new refusals, and move the cursor to the session's portfolios."""
        self.term.check()
        async with self._store.fenced(self.term) as writes:
            await writes.closes(day.date, day.close, symbols, closes)
            refusals = await self._write_refusals(writes)
            await writes.advance(self.job, self._session_date, Cursor(day.date, None))
        self._mark_saved(refusals)

    async def skip(self, day: date) -> None:
        """Commit a record that the session of that date is left to a later attempt."""
        self.term.check()
        async with self._store.fenced(self.term) as writes:
            refusals = await self._write_refusals(writes)
            await writes.skip(self.job, self._session_date, day)
        self._mark_saved(refusals)

    async def _write_refusals(self, writes: FencedWrites) -> Refusals:
        refusals = self._standing.changes() if self._standing is not None else {}
        await writes.refusals(refusals)
        return refusals

    def _mark_saved(self, refusals: Refusals) -> None:
        if self._standing is not None:
            self._standing.saved(refusals)

    async def fill(self, day: date, book: Book) -> int:
        """Write the rows of that date for the book's portfolios, one chunk for each block; returns their number.

        The chunks are committed in order, because a cursor means that all chunks before it are committed. They also get
        their connections in order: if there is only one connection, a chunk that waits for its turn must not have it. A
        chunk that fails also cancels the preceding chunk if that chunk is still being written.
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
        steps = range(len(book.blocks) + 1)
        connected, turns = [asyncio.Event() for _ in steps], [asyncio.Event() for _ in steps]
        connected[0].set()
        turns[0].set()

        async def write() -> None:
            nonlocal rows, done
            for index, block in chunks:
                values = await asyncio.to_thread(value_block, block, by_number)
                report_overflow(values.overflowing)
                await connected[index].wait()
                turn, next_connects = turns[index].wait, connected[index + 1].set
                async with self._store.fenced(self.term, values, turn, next_connects) as writes:
                    self.term.check()
                    written = await writes.history(KIND, day, origin=self._origin, overwrite=OVERWRITE[self.job])
                    cursor = Cursor(day, uuids(block.ids[-1:])[0])
                    await writes.advance(self.job, self._session_date, cursor, written)
                turns[index + 1].set()
                rows += written.rows
                done += len(block)
                self._progress(done, total)

        await run_concurrently(write() for _ in range(WRITERS))
        return rows
