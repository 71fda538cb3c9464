"""What a leader may write: the statements of one transaction that has passed the fence."""

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import date, datetime, timedelta
from uuid import UUID

import asyncpg

from runtime.escape import one_line
from service.database.connection import ERROR_SHOWN, Connection, StaleTerm, row_count
from service.database.copy_format import copy_of
from service.database.sql import statement
from service.market.tick_schedule import EPOCH
from service.portfolio.positions import uuids
from service.portfolio.records import Cursor, JobName, JobRun, Origin, Quote, Settle, Written, job_run
from service.portfolio.valuation import Values
from service.prices import Price
from service.prices.standing import Refusals

FORGET_REFUSALS = timedelta(days=7)
"""From the time when a symbol that was refused may be asked for again until its refusal is forgotten."""
LIVE_CHANNEL = "portfolio_live"


async def stage(connection: Connection, values: Values, idle_limit: float) -> None:
    """Bring values, in key order, to the server, for the statements of this transaction that write what is staged.

    From then on the server ends the transaction if it is idle for `idle_limit` seconds, unless it is told otherwise.
    """
    await connection.execute(statement("stage_table"))
    # A join of a million rows in memory; and to compile a statement takes as long as to run it.
    limit = f"set local idle_in_transaction_session_timeout = {int(idle_limit * 1000)}"
    await connection.execute(f"set local work_mem = '128MB'; set local jit = off; {limit}")
    await connection.copy_to_table("staged_value", schema_name="pg_temp", source=_parts(values), format="binary")


class FencedWrites:
    """The writes of one transaction; only `Store.fenced` makes one, so there is no writing around the fence.

    Nothing is committed before that transaction ends well. Portfolios that were deleted meanwhile are passed over.
    """

    def __init__(self, connection: Connection, *, token: int, holder: str, staged: Values | None) -> None:
        self._connection = connection
        self._token = token
        self._holder = holder
        self._staged = staged

    async def live(self, session_date: date, as_of: datetime) -> None:
        """Set the live values to those staged."""
        if not self._staged:
            return
        known, between = (session_date, as_of, self._token), uuids(self._staged.ids[[0, -1]])
        updated = row_count(await self._connection.execute(statement("update_live"), *known, *between))
        if updated < len(self._staged):
            await self._connection.execute(statement("insert_live"), *known)

    async def hold_off_deletions(self) -> None:
        """Let no portfolio be deleted until this transaction has ended, and wait for a deletion under way."""
        await self._connection.execute("select public.hold_off_deletions()")

    async def notify(self, as_of: datetime) -> None:
        """Tell everybody who listens that there are live values of that instant, once this is committed."""
        await self._connection.execute("select pg_notify($1, $2)", LIVE_CHANNEL, as_of.isoformat())

    async def intraday(self, session_date: date, slot: datetime, first: UUID, last: UUID) -> None:
        """Add a point to the day's course of each portfolio staged, of those from `first` to `last`.

        A second write of a slot replaces the first.
        """
        await self.make_intraday(session_date)
        points = session_date, slot, first, last, self._token
        try:
            async with self._connection.transaction():
                await self._connection.execute(statement("write_intraday"), *points)
        except asyncpg.UniqueViolationError:  # such as when the leader before has had a tick in this slot too
            await self._connection.execute(statement("write_intraday") + statement("replace_intraday"), *points)

    async def make_intraday(self, session_date: date) -> None:
        """Make room for that day's course, if there is none yet."""
        await self._connection.execute("select public.make_intraday_partition($1)", session_date)

    async def forget_changes(self, seen: str) -> None:
        """Drop the changes of positions that this snapshot saw."""
        await self._connection.execute(statement("forget_changes"), seen)

    async def drop_intraday(self, before: date) -> int:
        """Drop the days before that date, unless a reader is in the way for long; returns how many."""
        await self._connection.execute("set local lock_timeout = '2s'")
        return int(await self._connection.fetchval("select public.drop_intraday_partitions($1)", before))

    async def quotes(self, quotes: Collection[Quote]) -> None:
        """Keep the latest prices, for the next tick or the next leader to carry forward."""
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
        """Keep the symbols that the price source refuses, and forget those that it refuses no longer (None).

        Refusals that were due a week before the newest of these are forgotten too: nobody holds the symbol any more.
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
        """Set the closing prices of a session; of those symbols, one without gets its last live price, provisionally.

        An imported close is the user's word: no source replaces it. A provisional one replaces no other.
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

    async def history(self, kind: str, day: date, *, origin: Origin, settle: Settle) -> Written:
        """Add a day's row, marked `origin`, to each portfolio staged that has none. A value that is unknown is no row.

        The rows that are there are set right, as far as `settle` says: one with another value gets the next revision,
        and what it was is kept; a captured one becomes settled.
        """
        await self._connection.execute("select public.make_history_partition($1)", day)
        if not self._staged:
            return Written()
        between = uuids(self._staged.ids[[0, -1]])
        if settle == "none":
            try:
                async with self._connection.transaction():
                    done = await self._connection.execute(
                        statement("add_history"), day, kind, origin, self._token, *between
                    )
                return Written(rows=row_count(done), added=row_count(done))
            except asyncpg.UniqueViolationError:  # such as one that was written around the service
                pass
        (did,) = await self._connection.fetch(
            statement("write_history"), day, kind, origin, settle, self._token, *between
        )
        return Written(**did)

    async def claim(self, job: JobName, session_date: date, *, anew: bool = False) -> JobRun | None:
        """Make this term the run's worker, from wherever it stands; None if it is done, unless it shall begin anew."""
        row = await self._connection.fetchrow(
            statement("claim_run"), job, session_date, self._holder, self._token, anew
        )
        return None if row is None else job_run(row.items())

    async def advance(self, job: JobName, session_date: date, cursor: Cursor, written: Written | None = None) -> None:
        """Move the run's cursor, in the transaction that holds what it has passed."""
        written = written or Written()
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
        """Remember that the session of that day had no prices; the cursor may pass it, and the run is not done."""
        self._ours(await self._connection.execute(statement("skip_session"), job, session_date, self._token, day))

    async def end(self, job: JobName, session_date: date) -> None:
        """The run is done."""
        self._ours(await self._connection.execute(statement("end_run"), job, session_date, self._token))

    async def fail(self, job: JobName, session_date: date, error: str) -> None:
        """Record on the run, if it was claimed at all, why this attempt ended; the run stands where it is."""
        shown = one_line(error, ERROR_SHOWN)  # Postgres takes neither NUL nor a lone surrogate
        await self._connection.execute(statement("fail_run"), job, session_date, self._token, shown)

    def _ours(self, done: str) -> None:
        if done != "UPDATE 1":
            raise StaleTerm("another worker has taken up or ended this run")


async def _parts(values: Values) -> AsyncIterator[bytes]:
    for part in copy_of(values):
        yield part
