"""Finding out that a pooler gives each transaction another session, as PgBouncer does in transaction mode.

The service needs sessions: a LISTEN that is heard, prepared statements that are there when they are used, settings that
fall on nobody else. A pooler without other clients gives a client that asks alone the same session again, so two
transactions have to overlap.
"""

import asyncpg

from service.database.connection import Connection
from service.database.server_refusals import POOLED, ServerRefused

LOST_STATEMENTS = ("42P05", "26000")
"""SQLSTATEs of a prepared statement that is there already, or is not there: it was prepared in another session."""


async def check_sessions(one: Connection, other: Connection) -> None:
    """Return if each of the two connections is a session of its own.

    Raises:
        ServerRefused: they share sessions, or change them.
    """
    try:
        first = await _backend(one)
        moved = await _backend(one) != first
        async with other.transaction():
            shared = await _own_backend(other) == first
            moved = moved or (not shared and await _backend(one) != first)
    except asyncpg.PostgresError as error:
        if error.sqlstate in LOST_STATEMENTS:
            raise ServerRefused(POOLED) from error
        raise
    if moved or shared:
        raise ServerRefused(POOLED)


async def _backend(connection: Connection) -> int:
    async with connection.transaction():
        return await _own_backend(connection)


async def _own_backend(connection: Connection) -> int:
    return int(await connection.fetchval("select pg_catalog.pg_backend_pid()"))
