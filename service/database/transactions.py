"""The store's access to the database: connections, transactions, and the condition of the database."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from typing import Self

import asyncpg

from runtime.escape import one_line
from service.clock import utc_now
from service.database.condition import Condition
from service.database.connection import (
    ISOLATION,
    Connection,
    StoreError,
    connect,
    dsn_errors,
    overload_text,
    store_errors,
    terminate,
    transaction,
)
from service.database.pool import ConnectionPool, PoolGroup, Slot, open_pool
from service.database.postgres_address import CONNECT_LIMIT, connect_of_pool
from service.database.sql import statement
from service.database.write_watch import WriteWatch

NEW_CONNECTION_LIMIT = 2.0
"""Seconds for a new connection and its answer while the connections of the pool do not answer."""
CLOSE_LIMIT = 3.0
"""Seconds that running statements may take to end when the connections are closed."""


class Transactions:
    """A few connections to one database. Every method may raise `StoreError`."""

    def __init__(
        self,
        pool: ConnectionPool,
        dsn: str,
        *,
        idle_limit: float,
        call_limit: float,
        writes: WriteWatch | None = None,
    ) -> None:
        self._pool = pool
        self.writes = writes or WriteWatch()
        """The outcome of this process's writes."""
        self._dsn = dsn
        self._idle_limit = idle_limit
        self._call_limit = call_limit

    @classmethod
    async def connect(
        cls,
        dsn: str,
        *,
        connections: int = 5,
        at_once: bool = True,
        idle_limit: float = 5.0,
        call_limit: float = 30.0,
        group: PoolGroup | None = None,
        writes: WriteWatch | None = None,
    ) -> Self:
        """Connect to Postgres, directly or through a session pooler.

        Args:
            dsn: address of the database.
            connections: maximum number of connections.
            at_once: connect now; otherwise when a connection is first needed.
            idle_limit: seconds that a fenced transaction may be idle before the server ends it. Then the next leader
                can claim the fence.
            call_limit: seconds that a statement may take and, from Postgres 17 on, a fenced transaction.
            group: the pools of this process. Where the server allows too few connections, the pools share them.
            writes: the outcome of writes, shared by the stores of a process.
        """

        async def make_slot() -> Slot:
            return await asyncpg.create_pool(
                dsn,
                connect=connect_of_pool,
                min_size=0,
                max_size=1,
                timeout=CONNECT_LIMIT,
                command_timeout=call_limit,
            )

        with store_errors(), dsn_errors():
            opened = await open_pool(connections, make_slot, group or PoolGroup(), at_once=at_once)
        return cls(opened, dsn, idle_limit=idle_limit, call_limit=call_limit, writes=writes)

    async def close(self) -> None:
        """Close every connection after its statement has ended. After `CLOSE_LIMIT`, the rest are terminated."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_LIMIT):
                await self._pool.close()  # if cancelled, terminates every connection

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def ping(self) -> None:
        """Raise an error unless the database answers and lets this role see the portfolios."""
        async with self._connection() as connection:
            role = await connection.fetchval(statement("hidden_portfolios"))
        if role is not None:
            raise StoreError(
                f"database: DATABASE_URL: row-level security hides the portfolios from the role {one_line(role, 63)}; "
                "it has to be a member of portfolio_service (docs/database.md)"
            )

    async def condition(self) -> Condition:
        """Whether the database takes writes, and its clock. If the session takes no writes, a new session is asked."""
        found = await self._condition()
        if found.trouble is None:
            return found
        await self._pool.renew()
        return await self._condition()

    async def check_sessions(self) -> None:
        """Raise an error if a pooler gives each transaction another session; see `pooler`."""
        with store_errors():
            await self._pool.check()

    async def replace_dead_connections(self) -> bool:
        """Close the waiting connections for which the server executes nothing, if the server answers a new connection.

        After some network faults and failovers, open connections stay silent forever while new connections work.
        Returns whether any connection was closed.

        Raises:
            StoreError: no new connection can be opened, for example because the server allows no more connections.
        """
        waiting, answered_at = self._pool.waiting(), self._pool.answered_at
        if not waiting:
            return False
        with store_errors():
            async with asyncio.timeout(NEW_CONNECTION_LIMIT):
                connection = await connect(self._dsn)
                try:
                    rows = await connection.fetch(statement("at_work"), list(waiting.values()))
                finally:
                    terminate(connection)
        at_work = {row["pid"] for row in rows}
        dead = {each for each, pid in waiting.items() if pid not in at_work}
        if not dead or self._pool.answered_at != answered_at:
            return False
        await self._pool.replace(dead)
        return True

    @property
    def overload(self) -> str | None:
        """The server's refusal for too many connections, with the remedy; None while this store has a connection."""
        refused = self._pool.refused
        return None if refused is None or self._pool.is_connected else overload_text(refused)

    def answered_within(self, seconds: float) -> bool:
        """Whether the database answered a query of this store in the last `seconds`, even if others still wait."""
        at = self._pool.answered_at
        return at is not None and asyncio.get_running_loop().time() - at <= seconds

    @property
    def sessions_suspected(self) -> bool:
        """Whether the sessions need a check: an error suggests it, or a transaction pooler was found."""
        return self._pool.group.pooler_suspected or self._pool.group.pooler_found

    async def clock(self) -> datetime:
        """The time of the database's clock."""
        return (await self._condition()).clock

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        with store_errors():
            async with self._pool.connection() as connection:
                yield connection

    async def _condition(self) -> Condition:
        async with self._connection() as connection:
            asked_at = utc_now()
            (row,) = await connection.fetch(statement("condition"))
            return Condition(**row, asked_at=asked_at, answered_at=utc_now())

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Record a StoreError of the block as a refused write."""
        try:
            yield
        except StoreError as error:
            self.writes.refused(getattr(error.__cause__, "sqlstate", None), str(error).removeprefix("database: "))
            raise

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[Connection]:
        """A connection for writing; the outcome is recorded."""
        with self._refusals():
            async with self._connection() as connection:
                yield connection
        self.writes.accepted()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        async with self._writing() as connection, transaction(connection, isolation=ISOLATION):
            yield connection

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Connection]:
        with self._refusals():  # the export of a snapshot writes a file, and fails on a full disk
            async with (
                self._connection() as connection,
                transaction(connection, isolation="repeatable_read", readonly=True),
            ):
                yield connection

    async def _fetch(self, query: str, *parameters: object) -> list[asyncpg.Record]:
        async with self._connection() as connection:
            return await connection.fetch(query, *parameters)
