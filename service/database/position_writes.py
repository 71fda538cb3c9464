"""What users and their imports write: portfolios and positions, which no leader writes. So there is no fence."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from service.database.connection import Connection
from service.database.sql import statement
from service.portfolio.records import PositionEntry

MOST_OPEN_POSITIONS = 5000
"""Open ones, or to be opened, that a user may write into one portfolio: each costs every tick of everybody."""
MOST_ENTRIES_IN_ALL = 100_000
"""Of one portfolio, past ones included, that a user may write: they cost room, and time at the start of a term."""


class TooManyPositions(Exception):
    """A portfolio would have more positions, or more entries, than it may; the text says how many that is."""


async def put_own_positions(
    connection: Connection, portfolio_id: UUID, user_id: UUID, entries: Sequence[PositionEntry]
) -> int | None:
    """Add or change entries of a portfolio of that user's; returns how many entries it then has.

    All or nothing, and repeatable, in the transaction of the connection. None, and nothing is written, if there is no
    such portfolio of that user's. One that already has more than it may, as after an import, may still be written to if
    that makes it no worse.

    Raises:
        TooManyPositions: it would have more than `MOST_OPEN_POSITIONS`, or `MOST_ENTRIES_IN_ALL`.
    """
    if await connection.fetchval(statement("lock_portfolio"), portfolio_id, user_id) is None:
        return None
    (before,) = await connection.fetch(statement("count_positions"), portfolio_id)
    await _put(connection, [portfolio_id] * len(entries), entries)
    (after,) = await connection.fetch(statement("count_positions"), portfolio_id)
    if after["open"] > max(MOST_OPEN_POSITIONS, before["open"]):
        raise TooManyPositions(f"more than {MOST_OPEN_POSITIONS} open positions")
    if after["entries"] > max(MOST_ENTRIES_IN_ALL, before["entries"]):
        raise TooManyPositions(f"more than {MOST_ENTRIES_IN_ALL} entries, past ones included")
    return int(after["entries"])


async def put_positions(connection: Connection, entries: Sequence[PositionEntry], names: Mapping[UUID, str]) -> None:
    """Add positions, and the portfolios they are in where those are new, in the transaction of the connection."""
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
