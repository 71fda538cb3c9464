"""The statements of one transaction that has passed the fence.

A leader uses them for every write except the claim of the fence and the progress of loading positions.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from uuid import UUID

import asyncpg

from runtime.escape import one_line
from service.database.connection import ERROR_SHOWN, Connection, StaleTerm, row_count, transaction
from service.database.copy_format import HEADER, TRAILER, copy_rows
from service.database.sql import statement
from service.database.term import FencedTerm
from service.market.tick_schedule import EPOCH
from service.portfolio.positions import Ids, uuids
from service.portfolio.records import Cursor, JobName, JobRun, Origin, Overwrite, Quote, WriteCounts, job_run
from service.portfolio.valuation import Values
from service.prices import Price
from service.prices.standing import Refusals

FORGET_REFUSALS = timedelta(days=7)
"""Time from the retry time of a refused symbol until its refusal is deleted."""
LIVE_CHANNEL = "portfolio_live"
PLANS = (
    "set local work_mem = '128MB'; set local jit = off; set local enable_hashjoin = off;"
    " set local enable_nestloop = off"
)
"""Settings of the planner for statements that write staged values. They leave the planner no choice but the merge join.

- The staged rows are in key order. The planner does not know this and would choose a hash join, which takes a sixth
  more processor time than a merge join.
- The planner cannot interpolate uuids, so it expects one row in a range of ids between two neighbours of its histogram.
  For one row it would choose a nested loop, which reads all staged rows again for each row of the range. With five
  million portfolios, a chunk of 20,000 took 15 s instead of 0.03 s.
- With `work_mem`, the sort of half a million rows stays in memory.
- `jit` is off, because compiling a statement would take as long as running it.
"""


@dataclass
class Staged:
    """The portfolios whose values a transaction has staged: their number, and the first and the last of them."""

    count: int = 0
    between: list[UUID] = field(default_factory=list)
    """The first id and the last, or none if `count` is 0."""

    def add(self, ids: Ids) -> None:
        """Add portfolios that come after all portfolios added before, in key order."""
        if len(ids):
            self.count += len(ids)
            first, last = uuids(ids[[0, -1]])
            self.between = [*self.between[:1], last] if self.between else [first, last]


async def stage(connection: Connection, values: AsyncIterator[Values], idle_limit: float) -> Staged:
    """Copy values, in key order, to the server, for the statements of this transaction that write staged values.

    The server receives one part of the values while the next part is computed.

    Afterwards the server ends the transaction if it is idle for `idle_limit` seconds, unless a later statement changes
    the limit.
    """
    await connection.execute(statement("stage_table"))
    limit = f"set local idle_in_transaction_session_timeout = {int(idle_limit * 1000)}"
    await connection.execute(f"{PLANS}; {limit}")
    staged = Staged()
    rows = _copied(values, staged)
    await connection.copy_to_table("staged_value", schema_name="pg_temp", source=rows, format="binary")
    return staged


class FencedWrites:
    """The writes of one transaction.

    Only `Store.fenced_lanes` creates this object, so no write bypasses the fence. Nothing is committed before the
    transaction ends without an error. Portfolios that were deleted meanwhile are skipped.
    """

    def __init__(self, connection: Connection, term: FencedTerm, staged: Staged) -> None:
        self._connection = connection
        self._token = term.token
        self._holder = term.holder
        self._staged = staged

    async def live(self, session_date: date, as_of: datetime) -> None:
        """Set the live values to the staged ones."""
        if not self._staged.count:
            return
        known, between = (session_date, as_of, self._token), self._staged.between
        updated = row_count(await self._connection.execute(statement("update_live"), *known, *between))
        if updated < self._staged.count:
            await self._connection.execute(statement("insert_live"), *known, *between)

    async def block_deletions(self) -> None:
        """Wait for deletions of portfolios that are under way, and block new ones until this transaction has ended."""
        await self._connection.execute("select public.hold_off_deletions()")

    async def notify(self, as_of: datetime) -> None:
        """When this transaction is committed, notify all listeners that there are live values of that instant."""
        await self._connection.execute("select pg_notify($1, $2)", LIVE_CHANNEL, as_of.isoformat())

    async def intraday(self, session_date: date, slot: datetime, first: UUID, last: UUID) -> None:
        """Add an intraday point for each staged portfolio from `first` to `last`.

        A second write of a slot replaces the first.
        """
        await self.make_intraday(session_date)
        points = session_date, slot, first, last, self._token
        try:
            async with transaction(self._connection):
                await self._connection.execute(statement("write_intraday"), *points)
        except asyncpg.UniqueViolationError:  # such as when the previous leader has already written this slot
            await self._connection.execute(statement("write_intraday") + statement("replace_intraday"), *points)

    async def make_intraday(self, session_date: date) -> None:
        """Create the partition for that day's intraday points if it does not exist."""
        await self._connection.execute("select public.make_intraday_partition($1)", session_date)

    async def forget_changes(self, seen: str) -> None:
        """Delete old position changes that this snapshot has seen; see `forget_changes.sql`."""
        await self._connection.execute(statement("forget_changes"), seen)

    async def drop_intraday(self, before: date) -> int:
        """Drop the days before that date; returns their number. Fails if a reader holds a lock for more than 2 s."""
        await self._connection.execute("set local lock_timeout = '2s'")
        return int(await self._connection.fetchval("select public.drop_intraday_partitions($1)", before))

    async def quotes(self, quotes: Collection[Quote]) -> None:
        """Store the latest prices. The next tick or the next leader carries them forward."""
        await self._connection.execute(
            statement("write_quotes"),
            [q.symbol for q in quotes],
            [q.price for q in quotes],
            [q.at for q in quotes],
            [q.session_date for q in quotes],
            [q.open for q in quotes],
            self._token,
        )

    async def refusals(self, changes: Refusals) -> None:
        """Store the price source's new refusals. If the value of a symbol is None, delete its refusal.

        A refusal with a retry time more than a week before the newest refusal is deleted too: no portfolio holds its
        symbol any more.
        """
        if not changes:
            return
        refusals = [refusal for refusal in changes.values() if refusal is not None]
        gone = [symbol for symbol, refusal in changes.items() if refusal is None]
        newest = max((refusal.refused_at for refusal in refusals), default=EPOCH)
        await self._connection.execute(statement("forget_refusals"), gone, newest - FORGET_REFUSALS)
        await self._connection.execute(
            statement("write_refusals"),
            [refusal.symbol for refusal in refusals],
            [refusal.refusals for refusal in refusals],
            [refusal.refused_at for refusal in refusals],
            [refusal.retry_at for refusal in refusals],
            self._token,
        )

    async def closes(
        self, session_date: date, closed: datetime, symbols: Sequence[str], closes: Sequence[Price]
    ) -> None:
        """Set the closing prices of a session. A symbol without a close gets its last live price, marked provisional.

        No source replaces an imported close. A provisional close replaces only a provisional one.
        """
        await self._connection.execute(
            statement("write_closes"),
            session_date,
            [price.symbol for price in closes],
            [price.price for price in closes],
            [price.at for price in closes],
            self._token,
            closed,
            symbols,
        )

    async def history(self, kind: str, day: date, *, origin: Origin, overwrite: Overwrite) -> WriteCounts:
        """Add a day's row, marked `origin`, for each staged portfolio without one. An unknown value gets no row.

        `overwrite` names the existing rows that are corrected. A row whose value changes gets the next revision, and
        the old value is kept. A captured row that is written becomes settled.
        """
        await self._connection.execute("select public.make_history_partition($1)", day)
        if not self._staged.count:
            return WriteCounts()
        between = self._staged.between
        if overwrite == "none":
            try:
                async with transaction(self._connection):
                    done = await self._connection.execute(
                        statement("add_history"), day, kind, origin, self._token, *between
                    )
                return WriteCounts(rows=row_count(done), added=row_count(done))
            except asyncpg.UniqueViolationError:  # a row exists, such as one that another program wrote
                pass
        (counts,) = await self._connection.fetch(
            statement("write_history"), day, kind, origin, overwrite, self._token, *between
        )
        return WriteCounts(**counts)

    async def claim(self, job: JobName, session_date: date, *, rerun: bool = False) -> JobRun | None:
        """Claim the run for this term, at its present cursor; None if the run is done.

        With `rerun`, the run begins again without a cursor, even if it is done.
        """
        row = await self._connection.fetchrow(
            statement("claim_run"), job, session_date, self._holder, self._token, rerun
        )
        return None if row is None else job_run(row.items())

    async def advance(
        self, job: JobName, session_date: date, cursor: Cursor, written: WriteCounts | None = None
    ) -> None:
        """Move the run's cursor, in the transaction that writes the rows before it."""
        written = written or WriteCounts()
        self._ours(
            await self._connection.execute(
                statement("advance_run"),
                job,
                session_date,
                self._token,
                cursor.session_date,
                cursor.portfolio_id,
                written.rows,
                written.added,
                written.changed,
            )
        )

    async def skip(self, job: JobName, session_date: date, day: date) -> None:
        """Record that the session of that day had no prices. The cursor may pass it, but the run is not done."""
        self._ours(await self._connection.execute(statement("skip_session"), job, session_date, self._token, day))

    async def end(self, job: JobName, session_date: date) -> None:
        """Record that the run is done."""
        self._ours(await self._connection.execute(statement("end_run"), job, session_date, self._token))

    async def fail(self, job: JobName, session_date: date, error: str) -> None:
        """Record why this attempt at the run failed. The cursor stays where it is."""
        shown = one_line(error, ERROR_SHOWN)  # Postgres accepts neither NUL nor a lone surrogate
        await self._connection.execute(statement("fail_run"), job, session_date, self._token, shown)

    def _ours(self, done: str) -> None:
        if done != "UPDATE 1":
            raise StaleTerm("another worker has claimed or ended this run")


async def _copied(values: AsyncIterator[Values], staged: Staged) -> AsyncIterator[bytes]:
    """The values as a COPY FROM into `staged_value`; their portfolios are added to `staged`."""
    yield HEADER
    async for part in values:
        staged.add(part.ids)
        yield await asyncio.to_thread(copy_rows, part)  # the event loop stays free
    yield TRAILER
