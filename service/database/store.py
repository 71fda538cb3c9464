"""The portfolio database.

Only this package and `service.commands` contain SQL. Imports, migrations and the fence's repair each use a separate
connection.

A leader writes through `Store.fenced` or `Store.fenced_lanes`, which refuse a term once a newer term has claimed the
fence.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import date
from uuid import UUID

import asyncpg

from runtime.escape import one_line
from service.database.connection import ERROR_SHOWN, Connection, StaleTerm, StoreError, run_concurrently
from service.database.fence_state import explain_refusal
from service.database.fenced_writes import FencedWrites, Staged, stage
from service.database.live_notifications import Notice, listen
from service.database.position_reader import PositionReader, Progress, no_progress
from service.database.position_writes import put_own_positions, put_positions
from service.database.sql import statement
from service.database.term import FencedTerm
from service.database.transactions import Transactions
from service.market.overrides import MarketOverride
from service.portfolio.positions import PORTFOLIOS_PER_BLOCK, Book, HashCollision
from service.portfolio.records import (
    Close,
    Fence,
    HistoryRow,
    JobName,
    JobRun,
    LiveValue,
    Loading,
    PositionEntry,
    Quote,
    job_run,
)
from service.portfolio.valuation import Values
from service.prices.standing import Refusal

LANE_IDLE_FACTOR = 3
"""Idle limit of a transaction that waits for other lanes, as a multiple of the usual limit."""
TURN_IDLE_FACTOR = 2
"""Idle limit of a transaction that waits for its turn, as a multiple of the call limit. The transaction before it may
need several calls."""
HELPER_LIMIT = 2.0
"""Seconds that a load waits for its second connection."""
READERS = 2
"""Connections that read positions in parallel."""


async def _at_once() -> None:
    """The turn of a transaction that waits for no other transaction."""


def _ignored() -> None:
    """Ignore that a transaction has its connection; the default callback."""


async def _complete(values: Values) -> AsyncIterator[Values]:
    """Yield the values as a single part."""
    yield values


class Store(Transactions):
    """The database, through a few connections. Every method may raise `StoreError`."""

    # The fence.

    async def claim_fence(self, term: FencedTerm) -> None:
        """Make this term the newest of its lease in the database. The same term may claim the fence again.

        On return, no older term can commit anything.

        Raises:
            StaleTerm: a newer term has claimed the fence, or the token is more than a day ahead of the database's
                clock.
        """
        writes = self.writes.of(term.name)
        writes.due()
        async with self._writing() as connection:
            row = await connection.fetchrow(statement("claim_fence"), term.name, term.token, term.holder)
            if row is None:
                raise StaleTerm(await explain_refusal(connection, term))
        writes.cleared()

    async def claim_fence_by_hand(self, lease: str, holder: str) -> int:
        """Claim the fence for the holder without an election; returns the holder's token.

        The current term is refused from then on. The next elected term has a newer token and is accepted.

        Raises:
            StaleTerm: the stored token is the largest possible one.
        """
        async with self._connection() as connection:
            token: int | None = await connection.fetchval(statement("claim_fence_by_hand"), lease, holder)
        if token is None:
            raise StaleTerm(f"lease {lease}: no larger token is possible; python -m service fence {lease} repairs it")
        return token

    async def record_loading(self, term: FencedTerm, loading: Loading) -> None:
        """Record the progress of the term in loading positions.

        Raises:
            StaleTerm: the term is not the newest.
        """
        progress = loading.done, loading.total
        async with self._writing() as connection:
            if not await connection.fetch(statement("record_loading"), term.name, term.token, term.holder, *progress):
                raise StaleTerm(f"lease {term.name}: the term {term.token} is not the newest in the database")
        self.writes.of(term.name).cleared()

    async def forget_loading(self, term: FencedTerm) -> None:
        """Delete the record of the term's loading."""
        forget = "delete from public.position_loading where lease = $1 and token = $2"
        await self._fetch(forget, term.name, term.token)

    @asynccontextmanager
    async def fenced(
        self,
        term: FencedTerm,
        values: Values | None = None,
        turn: Callable[[], Awaitable[object]] = _at_once,
        connected: Callable[[], object] = _ignored,
    ) -> AsyncIterator[FencedWrites]:
        """A transaction of the term that has claimed the fence; committed when the block ends without an error.

        `values` are in key order, and are copied to the server before the transaction enters the fence. If the COPY
        came after the fence, a leader that froze during the COPY would hold the fence against every later term: while a
        server waits for the rest of a COPY, none of its limits ends a transaction.

        `turn` is awaited between the COPY and the fence, so that one transaction copies its values while another
        writes. After a wait of `TURN_IDLE_FACTOR` times `call_limit`, the server ends the transaction. A leader that
        freezes during this wait blocks only the vacuuming of tables, and no other transaction.

        `connected` is called when the transaction has its connection. Before that, the caller must not open another
        transaction that waits for this transaction, because the other transaction could take the only connection.

        Raises:
            StaleTerm: the term is not the newest; nothing of the block was committed.
        """
        lanes = [None if values is None else _complete(values)]
        async with self.fenced_lanes(term, lanes, turn, connected) as (writes,):
            yield writes

    @asynccontextmanager
    async def fenced_lanes(
        self,
        term: FencedTerm,
        lanes: Sequence[AsyncIterator[Values] | None],
        turn: Callable[[], Awaitable[object]] = _at_once,
        connected: Callable[[], object] = _ignored,
    ) -> AsyncIterator[Sequence[FencedWrites]]:
        """Open a transaction like `fenced` for each lane's values, so that several processors of the server write.

        A lane's values come in parts, in key order. The parts may be computed while earlier parts are copied.

        When the block ends without an error the transactions are committed one after another, the first lane last.
        Otherwise none is committed. If the database fails between two of these commits, the caller must be able to
        write the rest again.

        Raises:
            StaleTerm: see `fenced`.
        """
        writes = self.writes.of(term.name)
        writes.due()
        async with AsyncExitStack() as transactions:
            connections = [await transactions.enter_async_context(self._transaction()) for _ in lanes]
            connected()
            staged = [Staged() for _ in lanes]

            async def copy(lane: int, values: AsyncIterator[Values]) -> None:
                staged[lane] = await stage(connections[lane], values, TURN_IDLE_FACTOR * self._call_limit)

            await run_concurrently(copy(lane, values) for lane, values in enumerate(lanes) if values is not None)
            await turn()
            idle = self._idle_limit * (1 if len(lanes) == 1 else LANE_IDLE_FACTOR)
            for connection in connections:
                await self._enter_fence(connection, term, idle)
            yield [FencedWrites(connection, term, rows) for connection, rows in zip(connections, staged, strict=True)]
        writes.committed()

    async def _enter_fence(self, connection: Connection, term: FencedTerm, idle_limit: float) -> None:
        limits = (str(int(seconds * 1000)) for seconds in (idle_limit, self._call_limit))
        row = await connection.fetchrow(statement("enter_fence"), term.name, term.token, term.holder, *limits)
        if row is None:
            raise StaleTerm(await explain_refusal(connection, term))

    # Reads of the API.

    async def owner(self, portfolio_id: UUID) -> UUID | None:
        """The user who owns the portfolio; None if the portfolio does not exist."""
        rows = await self._fetch("select user_id from public.portfolio where id = $1", portfolio_id)
        return rows[0]["user_id"] if rows else None

    async def live(self, portfolio_id: UUID) -> LiveValue | None:
        """The portfolio's latest value; None before its first value."""
        return (await self.live_many([portfolio_id])).get(portfolio_id)

    async def live_many(self, portfolio_ids: Collection[UUID]) -> dict[UUID, LiveValue]:
        """The latest values of those portfolios that have one."""
        found = await self.live_of_owners(portfolio_ids)
        return {portfolio_id: value for portfolio_id, (_, value) in found.items() if value is not None}

    async def live_of_owners(self, portfolio_ids: Collection[UUID]) -> dict[UUID, tuple[UUID, LiveValue | None]]:
        """The owner and the latest value, if any, of each portfolio that exists."""
        rows = await self._fetch(statement("live"), list(portfolio_ids))
        return {row["portfolio_id"]: (row["user_id"], _live_value(row)) for row in rows}

    async def history(
        self, portfolio_id: UUID, first: date | None = None, last: date | None = None, limit: int = 1000
    ) -> list[HistoryRow]:
        """The newest `limit` rows from `first` to `last`, both included, oldest first."""
        return [HistoryRow(**row) for row in await self._fetch(statement("history"), portfolio_id, first, last, limit)]

    async def fences(self) -> dict[str, Fence]:
        """The newest term that has claimed the fence, by lease."""
        rows = await self._fetch("select lease, token, holder, taken_at from public.lease_fence")
        return {row["lease"]: Fence(**row) for row in rows}

    async def loading(self, lease: str) -> Loading | None:
        """The progress of the lease's newest term in loading positions; None unless it is loading now."""
        rows = await self._fetch(statement("loading"), lease)
        return Loading(rows[0]["portfolios_done"], rows[0]["portfolios"]) if rows else None

    async def job_runs(self) -> dict[JobName, JobRun]:
        """The run of the latest session that has a run, by job."""
        return {row["job"]: job_run(row.items()) for row in await self._fetch(statement("latest_runs"))}

    async def market_overrides(self, calendar: str) -> dict[date, MarketOverride]:
        """The days that differ from that calendar."""
        rows = await self._fetch(statement("market_overrides"), calendar)
        return {row["session_date"]: MarketOverride(**row) for row in rows}

    async def overridden_calendars(self) -> set[str]:
        """The calendar names in the overrides, unknown ones included."""
        return {row["calendar"] for row in await self._fetch("select distinct calendar from public.market_override")}

    def listen(self) -> AsyncGenerator[Notice, None]:
        """Notices of new live values and changed owners, on a separate connection; see `live_notifications.listen`."""
        return listen(self._dsn, free_connection=self._pool.group.free_connection)

    # Reads of the work.

    async def load_positions(self, day: date, progress: Progress = no_progress) -> Book:
        """Every portfolio with its positions on that date. `progress` is called after each block and may raise."""
        async with self._positions(READERS) as reader:
            return await reader.load(day, progress)

    async def update_positions(self, book: Book, day: date, progress: Progress = no_progress) -> Book:
        """The book at that date with every committed change: either `book` itself, updated, or a new book."""
        async with self._positions() as reader:
            return await reader.update(book, day, progress)

    async def opened_positions(
        self,
        day: date,
        after: UUID | None = None,
        *,
        without_row: str | None = None,
        or_stale: bool = False,
        portfolios_per_block: int = PORTFOLIOS_PER_BLOCK,
        progress: Progress = no_progress,
    ) -> Book:
        """The portfolios after `after`, in key order, that had opened a position by that date, with their positions.

        With `without_row`, a kind of history row, the book has only portfolios without a row of that kind and date.
        With `or_stale`, it also has the portfolios whose row is stale.
        """
        async with self._positions(READERS) as reader:
            return await reader.load_opened(
                day,
                after,
                without_row=without_row,
                or_stale=or_stale,
                portfolios_per_block=portfolios_per_block,
                progress=progress,
            )

    async def has_positions(self, day: date) -> bool:
        """Whether any portfolio had opened a position by that date."""
        found = "select exists (select from public.position where valid_from <= $1)"
        return bool((await self._fetch(found, day))[0]["exists"])

    async def has_intraday(self, day: date) -> bool:
        """Whether the partition for that day's intraday points exists."""
        return bool((await self._fetch(statement("has_intraday"), day))[0]["exists"])

    async def quotes(self) -> dict[str, Quote]:
        """The latest prices that a leader has stored."""
        rows = await self._fetch("select symbol, price, at, session_date, open from public.price_live")
        return {row["symbol"]: Quote(**row) for row in rows}

    async def refusals(self) -> list[Refusal]:
        """The symbols that the price source refuses."""
        rows = await self._fetch("select symbol, refusals, refused_at, retry_at from public.symbol_refusal")
        return [Refusal(**row) for row in rows]

    async def closes(self, day: date, symbols: Collection[str]) -> dict[str, Close]:
        """Each symbol's last close on or before that date."""
        return {row["symbol"]: Close(**row) for row in await self._fetch(statement("closes"), day, list(symbols))}

    async def runs(self, since: date) -> dict[tuple[JobName, date], JobRun]:
        """The runs from that session on, by job and session date."""
        rows = await self._fetch(statement("runs"), since)
        return {(row["job"], row["session_date"]): job_run(row.items()) for row in rows}

    # Writes of users and of the command `sample`; see `position_writes`.

    async def put_own_positions(
        self, portfolio_id: UUID, user_id: UUID, entries: Iterable[PositionEntry]
    ) -> int | None:
        """See `position_writes.put_own_positions`."""
        async with self._transaction() as connection:
            return await put_own_positions(connection, portfolio_id, user_id, list(entries))

    async def put_positions(self, entries: Iterable[PositionEntry], names: Mapping[UUID, str] | None = None) -> None:
        """Add or overwrite positions, and add the missing portfolios, all or nothing. The call may be repeated."""
        async with self._transaction() as connection:
            await put_positions(connection, list(entries), names or {})

    @asynccontextmanager
    async def _positions(self, readers: int = 1) -> AsyncIterator[PositionReader]:
        async with AsyncExitStack() as transactions:
            first = await transactions.enter_async_context(self._snapshot())
            others: list[Connection] = []
            with suppress(StoreError, TimeoutError):  # more connections only save time; two loads must not deadlock
                async with asyncio.timeout(HELPER_LIMIT):
                    while len(others) < readers - 1:
                        others.append(await transactions.enter_async_context(self._snapshot()))
            if others:
                snapshot = await first.fetchval("select pg_export_snapshot()")
                for connection in others:
                    await connection.execute(f"set transaction snapshot '{snapshot}'")
            try:
                yield PositionReader(first, [PositionReader(connection) for connection in others])
            except HashCollision as error:  # the next load has another seed
                raise StoreError(f"database: {one_line(error, ERROR_SHOWN)}") from error


def _live_value(row: asyncpg.Record) -> LiveValue | None:
    """The live value in a row that also has the owner; None if the portfolio has no value yet."""
    if row["token"] is None:
        return None
    return LiveValue(**{name: value for name, value in row.items() if name != "user_id"})
