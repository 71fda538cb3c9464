"""Detection of a pooler that gives each transaction another session, such as PgBouncer in transaction mode.

The service needs sessions: a LISTEN that receives notifications, prepared statements that still exist when they are
used, and settings that affect no other client. A pooler gives a single client the same session again and again. So the
check needs two transactions that overlap.
"""

import asyncpg

from service.database.connection import Connection, transaction
from service.database.server_refusals import TRANSACTION_POOLER_ERROR, ServerRefused

LOST_STATEMENTS = ("42P05", "26000")
"""SQLSTATEs of a prepared statement that already exists or does not exist: it was prepared in another session."""


async def check_sessions(one: Connection, other: Connection) -> None:
    """Check that each of the two connections has its own session.

    Raises:
        ServerRefused: the connections share a session, or a connection moves to another session.
    """
    try:
        first = await _backend(one)
        moved = await _backend(one) != first
        async with transaction(other):
            shared = await _own_backend(other) == first
            moved = moved or (not shared and await _backend(one) != first)
    except asyncpg.PostgresError as error:
        if error.sqlstate in LOST_STATEMENTS:
            raise ServerRefused(TRANSACTION_POOLER_ERROR) from error
        raise
    if moved or shared:
        raise ServerRefused(TRANSACTION_POOLER_ERROR)


async def _backend(connection: Connection) -> int:
    async with transaction(connection):
        return await _own_backend(connection)


async def _own_backend(connection: Connection) -> int:
    return int(await connection.fetchval("select pg_catalog.pg_backend_pid()"))
