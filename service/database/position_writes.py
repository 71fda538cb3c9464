"""Writes of users and of the command `sample`: portfolios and positions.

The writes need no fence, because no leader writes these tables.
"""

from collections.abc import Mapping, Sequence
from uuid import UUID

import asyncpg

from service.database.connection import END_IF_IDLE, Connection
from service.database.sql import statement
from service.portfolio.records import PositionEntry

MAX_OPEN_POSITIONS = 5000
"""Open and future positions that a user may write into one portfolio. Each of them takes time at every tick."""
MAX_ENTRIES = 100_000
"""Entries, past ones included, that a user may write into one portfolio. They take space, and time at the start of a
term."""


LOCK_LIMIT = 2.0
"""Seconds that a user's write waits for another writer of the same rows, such as an import. The write keeps a
connection meanwhile."""


class PositionsLocked(Exception):
    """Another writer, such as an import, keeps the same rows locked. A later attempt may succeed."""


class TooManyPositions(Exception):
    """A portfolio would have too many positions or entries; the text gives the limit."""


async def put_own_positions(
    connection: Connection, portfolio_id: UUID, user_id: UUID, entries: Sequence[PositionEntry]
) -> int | None:
    """Add or change entries of a user's own portfolio; returns the number of its entries afterwards.

    Writes all entries or none, in the transaction of the connection, and may be repeated. Returns None, and writes
    nothing, if the user has no such portfolio. A portfolio above a limit, such as after an import, accepts writes that
    do not increase its number of positions or entries.

    Raises:
        TooManyPositions: the portfolio would have more than `MAX_OPEN_POSITIONS` or `MAX_ENTRIES`.
        PositionsLocked: a row stayed locked for `LOCK_LIMIT` seconds.
    """
    await connection.execute(f"{END_IF_IDLE}; set local lock_timeout = {LOCK_LIMIT * 1000:.0f}")
    try:
        if await connection.fetchval(statement("lock_portfolio"), portfolio_id, user_id) is None:
            return None
        (before,) = await connection.fetch(statement("count_positions"), portfolio_id)
        await _put(connection, [portfolio_id] * len(entries), entries)
    except asyncpg.LockNotAvailableError:
        raise PositionsLocked("another writer is changing these positions; try again") from None
    (after,) = await connection.fetch(statement("count_positions"), portfolio_id)
    if after["open"] > max(MAX_OPEN_POSITIONS, before["open"]):
        raise TooManyPositions(f"more than {MAX_OPEN_POSITIONS} open positions")
    if after["entries"] > max(MAX_ENTRIES, before["entries"]):
        raise TooManyPositions(f"more than {MAX_ENTRIES} entries, past ones included")
    return int(after["entries"])


async def put_positions(connection: Connection, entries: Sequence[PositionEntry], names: Mapping[UUID, str]) -> None:
    """Add or overwrite positions, and add the missing portfolios, in the transaction of the connection."""
    await connection.execute(END_IF_IDLE)
    owners = {entry.portfolio_id: entry.user_id for entry in entries}
    called = [names.get(portfolio_id, "Portfolio") for portfolio_id in owners]
    await connection.execute(statement("add_portfolios"), list(owners), list(owners.values()), called)
    await _put(connection, [entry.portfolio_id for entry in entries], entries)


async def _put(connection: Connection, portfolio_ids: Sequence[UUID], entries: Sequence[PositionEntry]) -> None:
    await connection.execute(
        statement("put_positions"),
        portfolio_ids,
        [entry.symbol for entry in entries],
        [entry.valid_from for entry in entries],
        [entry.quantity for entry in entries],
    )
