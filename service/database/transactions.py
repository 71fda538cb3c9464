"""How the store reaches the database: its connections, its transactions, and what the database says of itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Self

import asyncpg

from runtime.escape import one_line
from service.clock import utc_now
from service.database.condition import Condition
from service.database.connection import ISOLATION, Connection, StoreError, dsn_errors, store_errors
from service.database.pool import Connections, Pool, Room, open_connections
from service.database.postgres_address import CONNECT_LIMIT, connect_of_pool
from service.database.sql import statement
from service.database.write_watch import WriteWatch

CLOSE_LIMIT = 3.0
"""Seconds that statements under way may take to end when the connections are closed."""


class Transactions:
    """A few connections to one database. Every method may raise `StoreError`."""

    def __init__(
        self,
        connections: Connections,
        dsn: str,
        *,
        idle_limit: float,
        call_limit: float,
        writes: WriteWatch | None = None,
    ) -> None:
        self._connections = connections
        self.writes = writes or WriteWatch()
        """What becomes of the writes."""
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
        room: Room | None = None,
        writes: WriteWatch | None = None,
    ) -> Self:
        """Connect to Postgres, directly or through a session pooler; unless `at_once`, when first needed.

        A fenced transaction that is idle for `idle_limit` seconds is ended by the server, and with it the wait of the
        next leader; no statement takes longer than `call_limit` seconds and, from Postgres 17 on, no such transaction.
        Stores of one process share a `room`: where the server allows fewer connections than they may have, each gives
        up a connection that another one needs more. They share `writes`, too, where somebody looks at those.
        """

        async def place() -> Pool:
            return await asyncpg.create_pool(
                dsn,
                connect=connect_of_pool,
                min_size=0,
                max_size=1,
                timeout=CONNECT_LIMIT,
                command_timeout=call_limit,
            )

        with store_errors(), dsn_errors():
            opened = await open_connections(connections, place, room or Room(), at_once=at_once)
        return cls(opened, dsn, idle_limit=idle_limit, call_limit=call_limit, writes=writes)

    async def close(self) -> None:
        """Close every connection, once its statement has ended; one whose statement does not end is cut."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_LIMIT):
                await self._connections.close()  # cut off, it ends every connection at once

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def ping(self) -> None:
        """Return if the database answers, and shows this role the portfolios."""
        async with self._connection() as connection:
            role = await connection.fetchval(statement("hidden_portfolios"))
        if role is not None:
            raise StoreError(
                f"database: DATABASE_URL: row-level security hides the portfolios from the role {one_line(role, 63)}; "
                "it has to be a member of portfolio_service (docs/database.md)"
            )

    async def condition(self) -> Condition:
        """Whether the database takes writes, and its clock; where a session is read-only, a new one is asked."""
        found = await self._condition()
        if found.trouble is None:
            return found
        await self._connections.renew()
        return await self._condition()

    async def check_sessions(self) -> None:
        """Return if no pooler swaps sessions under our connections, as far as can be seen; see `pooler`."""
        with store_errors():
            await self._connections.check()

    def answered_within(self, seconds: float) -> bool:
        """Whether the database did something for us within that time: then it is there, though a caller waits."""
        at = self._connections.answered_at
        return at is not None and asyncio.get_running_loop().time() - at <= seconds

    @property
    def sessions_suspected(self) -> bool:
        """Whether an error says that the sessions should be checked now."""
        return self._connections.room.suspected or self._connections.room.refused

    async def clock(self) -> datetime:
        """The time by the database's clock."""
        return (await self._condition()).clock

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        with store_errors():
            async with self._connections.connection() as connection:
                yield connection

    async def _condition(self) -> Condition:
        async with self._connection() as connection:
            asked_at = utc_now()
            (row,) = await connection.fetch(statement("condition"))
            return Condition(**row, asked_at=asked_at, answered_at=utc_now())

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[Connection]:
        """A connection to write something; what becomes of that is recorded."""
        try:
            async with self._connection() as connection:
                yield connection
        except StoreError as error:
            self.writes.refused(getattr(error.__cause__, "sqlstate", None), str(error).removeprefix("database: "))
            raise
        self.writes.accepted()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        async with self._writing() as connection, connection.transaction(isolation=ISOLATION):
            yield connection

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Connection]:
        async with (
            self._connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection

    async def _fetch(self, query: str, *parameters: object) -> list[asyncpg.Record]:
        async with self._connection() as connection:
            return await connection.fetch(query, *parameters)
