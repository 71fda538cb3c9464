"""Positions for tests, written and read in a short form."""

from datetime import date
from decimal import Decimal
from uuid import UUID

from service.database.connection import Connection
from service.database.store import Store
from service.portfolio.positions import Book, uuids
from service.portfolio.records import PositionEntry
from tests.support.waiting import eventually

USER = UUID(int=0xA)
LONG_AGO = date(2020, 1, 1)


def entry(portfolio: int, symbol: str, quantity: str, valid_from: date = LONG_AGO, user: UUID = USER) -> PositionEntry:
    return PositionEntry(UUID(int=portfolio), user, symbol, Decimal(quantity), valid_from)


def holdings(book: Book) -> dict[UUID, tuple[tuple[str, Decimal], ...]]:
    """The positions of each portfolio in a book, with symbols in alphabetical order."""
    found = {}
    for block in book.blocks:
        for portfolio_id, first, behind in zip(uuids(block.ids), block.starts, block.starts[1:], strict=False):
            positions = zip(block.symbols[first:behind], block.quantities[first:behind], strict=True)
            held = ((book.symbols[int(number)], Decimal(int(quantity)).scaleb(-8)) for number, quantity in positions)
            found[portfolio_id] = tuple(sorted(held))
    return found


async def held(store: Store, day: date) -> dict[UUID, tuple[tuple[str, Decimal], ...]]:
    """The positions of each portfolio on a date."""
    return holdings(await store.load_positions(day))


async def somebody_waits_for_a_lock(raw: Connection, many: int = 1) -> None:
    """Wait until at least this number of connections wait for a lock."""
    await eventually(lambda: raw.fetchval("select count(*) >= $1 from pg_locks where not granted", many))
