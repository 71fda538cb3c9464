"""Positions from the database: loaded whole, in key order, and kept up to date from what changed since.

The reader's place in the changes is a snapshot of the database. The next look asks for the changes that this snapshot
did not see, whichever order their transactions were committed in, and reads the portfolios that they name again. A
transaction sees one moment: what is read, and the snapshot that it is true of, belong together. A snapshot is made of
one server's transaction ids. After a restart, a failover or a restore everything is loaded again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import date
from uuid import UUID

import numpy as np

from service.database.connection import Connection, side_by_side
from service.database.copy_format import Held, read_held, read_ids
from service.database.sql import statement
from service.portfolio.positions import PORTFOLIOS_A_BLOCK, Block, Book, Ids, Place, Symbols, id_array, starts_of, uuids

Progress = Callable[[int, int], None]
"""Told how many portfolios are done, and of how many, after each block, of a load also at its start; may raise, which
ends the reading."""

RELOAD_ABOVE = 0.2
"""The share of portfolios that may have changed for reading them one by one to be quicker than reading all."""


def quietly(_done: int, _total: int) -> None:
    """Progress that nobody asked about."""


class PositionReader:
    """Reads within one transaction, which must be repeatable-read.

    `beside` are readers on other connections that see the same snapshot of the database: they share the loading, so
    that the database sends from one while what another sent is taken in.
    """

    def __init__(self, connection: Connection, beside: Sequence["PositionReader"] = ()) -> None:
        self._connection = connection
        self._readers = self, *beside

    async def load(self, day: date, progress: Progress) -> Book:
        """Every portfolio, with what it holds on that date."""
        symbols, place = Symbols(), await self._place()

        async def read(reader: PositionReader, start: UUID | None, portfolios: Ids) -> Block:
            return _among(portfolios, await reader._between(symbols, day, start, portfolios))

        return Book(day, symbols, await self._blocks(None, PORTFOLIOS_A_BLOCK, read, progress), place)

    async def load_opened(
        self,
        day: date,
        after: UUID | None,
        *,
        without_row: str | None,
        or_stale: bool,
        portfolios_a_block: int,
        progress: Progress,
    ) -> Book:
        """The portfolios after that one that had opened a position by that date, with what they held then.

        With `without_row`, a kind of history row, only those that have none of that date; or a stale one, with
        `or_stale`.
        """
        symbols = Symbols()

        async def read(reader: PositionReader, start: UUID | None, portfolios: Ids) -> Block | None:
            wanted = portfolios
            if without_row is not None:
                last = uuids(portfolios[-1:])[0]
                wanted = await reader._ids("portfolios_without_row", start, last, day, without_row, or_stale)
            if len(wanted) == len(portfolios):  # a range is read in half the time
                block = await reader._between(symbols, day, start, portfolios)
            else:
                block = await reader._of(symbols, day, wanted)
            return block if len(block) else None

        return Book(day, symbols, await self._blocks(after, portfolios_a_block, read, progress), await self._place())

    async def update(self, book: Book, day: date, progress: Progress) -> Book:
        """The book of that date, true of now: the same one, changed where the database has, or a new one."""
        place = await self._place()
        if place.server != book.place.server:
            return await self.load(day, progress)
        found = await self._connection.fetchval(statement("position_changes"), book.place.snapshot, book.day, day)
        changed = np.unique(id_array(found))
        if len(changed) > max(len(book) * RELOAD_ABOVE, PORTFOLIOS_A_BLOCK):
            return await self.load(day, progress)
        fresh = []
        for first in range(0, len(changed), PORTFOLIOS_A_BLOCK):
            there = await self._ids("portfolios_there", uuids(changed[first : first + PORTFOLIOS_A_BLOCK]))
            fresh.append(_among(there, await self._of(book.symbols, day, there)))
        book.replace(changed, Block.joined(fresh))
        book.place, book.day = place, day
        return book

    async def _place(self) -> Place:
        (row,) = await self._connection.fetch(statement("place"))
        return Place(**row)

    async def _blocks(
        self,
        after: UUID | None,
        size: int,
        read: Callable[["PositionReader", UUID | None, Ids], Awaitable[Block | None]],
        progress: Progress,
    ) -> list[Block]:
        """What `read` makes of all portfolios after that one, `size` at a time, with the one before them; in order."""
        ids = await self._ids("portfolios_after", after)
        parts = [ids[first : first + size] for first in range(0, len(ids), size)]
        blocks: list[Block | None] = [None] * len(parts)
        places, done = iter(range(len(parts))), 0
        progress(done, len(ids))

        async def work(reader: PositionReader) -> None:
            nonlocal done
            for place in places:
                start = uuids(parts[place - 1][-1:])[0] if place else after
                blocks[place] = await read(reader, start, parts[place])
                done += len(parts[place])
                progress(done, len(ids))

        await side_by_side(work(reader) for reader in self._readers)
        return [block for block in blocks if block is not None]

    async def _ids(self, name: str, *parameters: object) -> Ids:
        return read_ids(await self._copy(name, *parameters))

    async def _between(self, symbols: Symbols, day: date, after: UUID | None, portfolios: Ids) -> Block:
        """As `_of`, for portfolios that are all those after the one named up to their last."""
        last = uuids(portfolios[-1:])[0]
        copied = await self._copy("positions_between", day, after, last)
        return await self._block(symbols, copied, "symbols_between", after, last)

    async def _of(self, symbols: Symbols, day: date, portfolios: Ids) -> Block:
        """Those of the portfolios that had opened a position by that date, with what they hold."""
        ids = uuids(portfolios)
        copied = await self._copy("positions_of", day, ids)
        return await self._block(symbols, copied, "symbols_of", ids)

    async def _block(self, symbols: Symbols, copied: bytearray, unknown: str, *parameters: object) -> Block:
        """What was copied; where it has symbols that are not known yet, the statement `unknown` gives them all."""
        held = await asyncio.to_thread(read_held, copied)
        block = await asyncio.to_thread(_open, held, symbols)
        if (block.symbols < 0).any():
            found = await self._connection.fetch(statement(unknown), *parameters)
            symbols.learn({row["number"]: row["symbol"] for row in found})
            block = await asyncio.to_thread(_open, held, symbols)
        return block

    async def _copy(self, name: str, *parameters: object) -> bytearray:
        copied = bytearray()

        async def take(data: bytes) -> None:
            copied.extend(data)

        query = "\n".join(line for line in statement(name).splitlines() if not line.startswith("--"))
        # asyncpg puts the parameters into the text, in its comments too
        await self._connection.copy_from_query(query, *parameters, output=take, format="binary")
        return copied


def _open(held: Held, symbols: Symbols) -> Block:
    """The portfolios with those of their positions that are open; a symbol that is not known has the number -1."""
    numbers = symbols.numbers(held.positions["symbol"].astype(np.int64))
    quantities, counts = held.positions["units"].astype(np.int64), held.counts
    is_open = quantities != 0
    if not is_open.all():
        until = np.concatenate([np.zeros(1, np.int64), np.cumsum(is_open)])
        counts = np.diff(until[starts_of(counts)])
        numbers, quantities = numbers[is_open], quantities[is_open]
    return Block(held.ids, starts_of(counts), numbers, quantities)


def _among(portfolios: Ids, block: Block) -> Block:
    """All of those portfolios, in key order, of which the block has some."""
    if len(block) == len(portfolios):
        return block
    counts = np.zeros(len(portfolios), np.int64)
    counts[np.searchsorted(portfolios, block.ids)] = block.counts
    return Block(portfolios, starts_of(counts), block.symbols, block.quantities)
