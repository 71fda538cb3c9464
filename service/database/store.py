"""The portfolio database.

SQL is spoken here and in `transactions`, `writes`, `position_reader`, `position_writes` and `notices`, which are behind
this; and in `imports`, `migrations` and `fence`, each on a connection of its own. Nowhere else.

What a leader writes goes through `Store.fenced`, which refuses a term that a newer one has followed.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import date, datetime
from uuid import UUID

import asyncpg

from service.database.connection import Connection, StaleTerm, StoreError, side_by_side
from service.database.fence_state import refusal
from service.database.fenced_writes import FencedWrites, stage
from service.database.live_notifications import Notice, listen
from service.database.position_reader import PositionReader, Progress, quietly
from service.database.position_writes import put_own_positions, put_positions
from service.database.sql import statement
from service.database.transactions import Transactions
from service.market.overrides import MarketOverride
from service.portfolio.positions import PORTFOLIOS_A_BLOCK, Book
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

LANE_PATIENCE = 3
"""How many times as long a transaction may be idle that waits for others beside it."""
TURN_PATIENCE = 2
"""How many times as long as a call a transaction may wait for its turn: the one before it may need several."""
HELPER_LIMIT = 2.0
"""Seconds to wait for a connection beside the first one of a load."""
READERS = 2
"""Connections that read every position side by side."""


async def _at_once() -> None:
    """The turn of a transaction that waits for no other."""


class Store(Transactions):
    """The database, through a few connections. Every method may raise `StoreError`."""

    # Who may write.

    async def take_up(self, lease: str, token: int, holder: str) -> None:
        """Make this term the newest of its lease in the database; done again by the same term, it changes nothing.

        Returns once no older term can commit anything any more.

        Raises:
            StaleTerm: a newer term was here first, or the token is more than a day ahead of the database's clock.
        """
        writes = self.writes.of(lease)
        writes.due()
        async with self._writing() as connection:
            row = await connection.fetchrow(statement("take_up"), lease, token, holder)
            if row is None:
                raise StaleTerm(await refusal(connection, lease, token))
        writes.cleared()

    async def take_up_by_hand(self, lease: str, holder: str) -> int:
        """Make the holder the newest in the database, without an election; returns its token.

        The term that led until now is refused from then on; whoever leads next has a newer token and is not.

        Raises:
            StaleTerm: no token is larger than the stored one.
        """
        async with self._connection() as connection:
            token: int | None = await connection.fetchval(statement("take_up_by_hand"), lease, holder)
        if token is None:
            raise StaleTerm(f"lease {lease}: no token is larger than the database's; python -m service fence {lease}")
        return token

    async def tell_loading(self, lease: str, token: int, holder: str, loading: Loading) -> None:
        """Say how far the term has come with loading positions.

        Raises:
            StaleTerm: it is not the newest term.
        """
        if not await self._fetch(statement("tell_loading"), lease, token, holder, loading.done, loading.total):
            raise StaleTerm(f"lease {lease}: the term {token} is not the newest in the database")
        self.writes.of(lease).cleared()

    async def forget_loading(self, lease: str, token: int) -> None:
        """Say that the term loads no longer."""
        await self._fetch("delete from public.position_loading where lease = $1 and token = $2", lease, token)

    @asynccontextmanager
    async def fenced(
        self,
        lease: str,
        token: int,
        holder: str,
        values: Values | None = None,
        turn: Callable[[], Awaitable[object]] = _at_once,
    ) -> AsyncIterator[FencedWrites]:
        """A transaction of the term that has taken the lease up; committed when the block ends without an error.

        `values`, in key order, are what it writes; they are with the server before it enters the fence. For while the
        server waits for the rest of a COPY none of its limits ends a transaction: a leader that was frozen there would
        hold the fence against every later one. `turn` is awaited between the two, so that one transaction's values are
        brought there while another writes; for `TURN_PATIENCE` times `call_limit` at most, or the server ends it: the
        transaction of a leader that is frozen there holds up no other, but the vacuuming of every table.

        Raises:
            StaleTerm: it is not, or no longer, the newest term; nothing of the block was committed.
        """
        async with self.fenced_lanes(lease, token, holder, [values], turn) as (writes,):
            yield writes

    @asynccontextmanager
    async def fenced_lanes(
        self,
        lease: str,
        token: int,
        holder: str,
        lanes: Sequence[Values | None],
        turn: Callable[[], Awaitable[object]] = _at_once,
    ) -> AsyncIterator[Sequence[FencedWrites]]:
        """A transaction as of `fenced` for each lane's values, so that several processors of the server write at once.

        When the block has ended without an error they are committed in a row, the first of them last; else none is.
        Where the database goes away between two of these commits, the caller must be able to write the rest again.

        Raises:
            StaleTerm: see `fenced`.
        """
        writes = self.writes.of(lease)
        writes.due()
        async with AsyncExitStack() as transactions:
            connections = [await transactions.enter_async_context(self._transaction()) for _ in lanes]
            await side_by_side(
                stage(connection, values, TURN_PATIENCE * self._call_limit)
                for connection, values in zip(connections, lanes, strict=True)
                if values is not None
            )
            await turn()
            idle = self._idle_limit * (1 if len(lanes) == 1 else LANE_PATIENCE)
            for connection in connections:
                await self._enter_fence(connection, lease, token, holder, idle)
            yield [
                FencedWrites(connection, token=token, holder=holder, staged=values)
                for connection, values in zip(connections, lanes, strict=True)
            ]
        writes.committed()

    async def _enter_fence(
        self, connection: Connection, lease: str, token: int, holder: str, idle_limit: float
    ) -> None:
        idle, call = (str(int(seconds * 1000)) for seconds in (idle_limit, self._call_limit))
        if await connection.fetchrow(statement("enter_fence"), lease, token, holder, idle, call) is None:
            raise StaleTerm(await refusal(connection, lease, token))

    # What the API reads.

    async def owner(self, portfolio_id: UUID) -> UUID | None:
        """The user whose portfolio it is; None if there is no such portfolio."""
        rows = await self._fetch("select user_id from public.portfolio where id = $1", portfolio_id)
        return rows[0]["user_id"] if rows else None

    async def live(self, portfolio_id: UUID) -> LiveValue | None:
        """The latest value, or None before the first."""
        return (await self.live_many([portfolio_id])).get(portfolio_id)

    async def live_many(self, portfolio_ids: Collection[UUID]) -> dict[UUID, LiveValue]:
        """The latest values of those that have one."""
        found = await self.live_of_owners(portfolio_ids)
        return {portfolio_id: value for portfolio_id, (_, value) in found.items() if value is not None}

    async def live_of_owners(self, portfolio_ids: Collection[UUID]) -> dict[UUID, tuple[UUID, LiveValue | None]]:
        """The owner of each, and its latest value if it has one; a portfolio that is not there is left out."""
        rows = await self._fetch(statement("live"), list(portfolio_ids))
        return {row["portfolio_id"]: (row["user_id"], _live_value(row)) for row in rows}

    async def history(
        self, portfolio_id: UUID, first: date | None = None, last: date | None = None, limit: int = 1000
    ) -> list[HistoryRow]:
        """The newest `limit` rows from `first` to `last`, both included, oldest first."""
        return [HistoryRow(**row) for row in await self._fetch(statement("history"), portfolio_id, first, last, limit)]

    async def fences(self) -> dict[str, Fence]:
        """By lease, the newest term that has taken it up here."""
        rows = await self._fetch("select lease, token, holder, taken_at from public.lease_fence")
        return {row["lease"]: Fence(**row) for row in rows}

    async def loading(self, lease: str) -> Loading | None:
        """How far the lease's newest term has come with loading positions; None unless it loads now."""
        rows = await self._fetch(statement("loading"), lease)
        return Loading(rows[0]["portfolios_done"], rows[0]["portfolios"]) if rows else None

    async def job_runs(self) -> dict[JobName, JobRun]:
        """By job, the run of the latest session that has one."""
        return {row["job"]: job_run(row.items()) for row in await self._fetch(statement("latest_runs"))}

    async def market_overrides(self, calendar: str) -> dict[date, MarketOverride]:
        """The days that differ from that calendar."""
        rows = await self._fetch(statement("market_overrides"), calendar)
        return {row["session_date"]: MarketOverride(**row) for row in rows}

    async def overridden_calendars(self) -> set[str]:
        """The names of calendars, right or wrong, that some day is said to differ from."""
        return {row["calendar"] for row in await self._fetch("select distinct calendar from public.market_override")}

    def listen(self) -> AsyncIterator[Notice]:
        """Notices of new live values, on a connection of its own; see `notices.listen`."""
        return listen(self._dsn, make_room=self._connections.room.make)

    # What the work reads.

    async def load_positions(self, day: date, progress: Progress = quietly) -> Book:
        """Every portfolio, with what it holds on that date; `progress` is told after each block, and may raise."""
        async with self._positions(READERS) as reader:
            return await reader.load(day, progress)

    async def update_positions(self, book: Book, day: date, progress: Progress = quietly) -> Book:
        """The book of that date, with all that was committed until now: changed where it must be, or loaded anew."""
        async with self._positions() as reader:
            return await reader.update(book, day, progress)

    async def opened_positions(
        self,
        day: date,
        after: UUID | None = None,
        *,
        without_row: str | None = None,
        or_stale: bool = False,
        portfolios_a_block: int = PORTFOLIOS_A_BLOCK,
        progress: Progress = quietly,
    ) -> Book:
        """The portfolios after that one, in key order, that had opened a position by that date, with what they held.

        With `without_row`, only those that have no history row of that date and kind, or with `or_stale` a stale one.
        """
        async with self._positions(READERS) as reader:
            return await reader.load_opened(
                day,
                after,
                without_row=without_row,
                or_stale=or_stale,
                portfolios_a_block=portfolios_a_block,
                progress=progress,
            )

    async def quotes(self) -> dict[str, Quote]:
        """The latest prices that any leader has kept."""
        rows = await self._fetch("select symbol, price, at, session_date, open from public.price_live")
        return {row["symbol"]: Quote(**row) for row in rows}

    async def refusals(self) -> list[Refusal]:
        """The symbols that the price source refuses."""
        rows = await self._fetch("select symbol, refusals, refused_at, retry_at from public.symbol_refusal")
        return [Refusal(**row) for row in rows]

    async def closes(self, day: date, symbols: Collection[str]) -> dict[str, Close]:
        """Each symbol's last close at that date or before it."""
        return {row["symbol"]: Close(**row) for row in await self._fetch(statement("closes"), day, list(symbols))}

    async def finished_runs(self, since: date) -> dict[tuple[JobName, date], datetime]:
        """By job and session date, when the runs from that session on were done; those that are not are left out."""
        rows = await self._fetch(
            "select job, session_date, finished_at from public.job_run where status = 'done' and session_date >= $1",
            since,
        )
        return {(row["job"], row["session_date"]): row["finished_at"] for row in rows}

    # What the users and their imports write: portfolios and positions, which no leader writes. So there is no fence.

    async def put_own_positions(
        self, portfolio_id: UUID, user_id: UUID, entries: Iterable[PositionEntry]
    ) -> int | None:
        """See `position_writes.put_own_positions`."""
        async with self._transaction() as connection:
            return await put_own_positions(connection, portfolio_id, user_id, list(entries))

    async def put_positions(self, entries: Iterable[PositionEntry], names: Mapping[UUID, str] | None = None) -> None:
        """Add positions, and the portfolios they are in where those are new: all or nothing, repeatable."""
        async with self._transaction() as connection:
            await put_positions(connection, list(entries), names or {})

    @asynccontextmanager
    async def _positions(self, readers: int = 1) -> AsyncIterator[PositionReader]:
        async with AsyncExitStack() as transactions:
            first = await transactions.enter_async_context(self._snapshot())
            others: list[Connection] = []
            with suppress(StoreError, TimeoutError):  # those are for speed: two loads must not wait for each other
                async with asyncio.timeout(HELPER_LIMIT):
                    while len(others) < readers - 1:
                        others.append(await transactions.enter_async_context(self._snapshot()))
            if others:
                snapshot = await first.fetchval("select pg_export_snapshot()")
                for connection in others:
                    await connection.execute(f"set transaction snapshot '{snapshot}'")
            yield PositionReader(first, [PositionReader(connection) for connection in others])


def _live_value(row: asyncpg.Record) -> LiveValue | None:
    """The value in a row that names the owner too; None where the portfolio has none yet."""
    if row["token"] is None:
        return None
    return LiveValue(**{name: value for name, value in row.items() if name != "user_id"})
