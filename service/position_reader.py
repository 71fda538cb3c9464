"""Positions from the database: loaded whole, in key order, and kept up to date from what changed since.

The reader's place in the changes is a snapshot of the database. The next look asks for the changes that this snapshot
did not see, whichever order their transactions were committed in, and reads the portfolios that they name anew. A
transaction sees one moment: what is read, and the snapshot that it is true of, belong together.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import date
from typing import TypeAlias
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from service.copy_format import ID_ROW, POSITION_ROW, records
from service.database import Connection, side_by_side
from service.positions import PORTFOLIOS_A_BLOCK, Block, Book, Ids, Symbols, id_array, uuids
from service.sql import statement

Progress = Callable[[int, int], None]
"""Told how many portfolios are done, and of how many, after each block, of a load also at its start; may raise, which
ends the reading."""

Held: TypeAlias = tuple[NDArray[np.void], NDArray[np.int32]]
"""Positions as `POSITION_ROW`s in key order, closed ones included, and the numbers of their symbols."""

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
        symbols = Symbols()
        seen: str = await self._connection.fetchval("select pg_current_snapshot()::text")

        async def read(reader: PositionReader, start: UUID | None, portfolios: Ids) -> Block:
            held = await reader._between(symbols, day, start, portfolios)
            return await asyncio.to_thread(_block, portfolios, *held)

        return Book(day, symbols, await self._blocks(None, PORTFOLIOS_A_BLOCK, read, progress), seen)

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
                rows, numbers = await reader._between(symbols, day, start, portfolios)
            else:
                rows, numbers = await reader._of(symbols, day, wanted)
            if not len(rows):
                return None
            return await asyncio.to_thread(_block, rows["id"][_first_of_each(rows["id"])], rows, numbers)

        return Book(day, symbols, await self._blocks(after, portfolios_a_block, read, progress), "")

    async def update(self, book: Book, day: date, progress: Progress) -> Book:
        """The book of that date, true of now: the same one, changed where the database has, or a new one."""
        (news,) = await self._connection.fetch(statement("position_changes"), book.seen, book.day, day)
        changed = np.unique(id_array(news["changed"]))
        if len(changed) > max(len(book) * RELOAD_ABOVE, PORTFOLIOS_A_BLOCK):
            return await self.load(day, progress)
        fresh = []
        for first in range(0, len(changed), PORTFOLIOS_A_BLOCK):
            there = await self._ids("portfolios_there", uuids(changed[first : first + PORTFOLIOS_A_BLOCK]))
            fresh.append(_block(there, *await self._of(book.symbols, day, there)))
        book.replace(changed, Block.joined(fresh))
        book.seen, book.day = news["seen"], day
        return book

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
        found: Ids = np.ascontiguousarray((await self._copy(name, ID_ROW, *parameters))["id"])
        return found

    async def _between(self, symbols: Symbols, day: date, after: UUID | None, portfolios: Ids) -> Held:
        """What those portfolios hold, which are all after the one named."""
        last = uuids(portfolios[-1:])[0]
        rows = (await self._copy("positions_between", POSITION_ROW, day, after, last))[::-1]
        return rows, await self._numbers(symbols, rows, "symbols_between", after, last)

    async def _of(self, symbols: Symbols, day: date, portfolios: Ids) -> Held:
        """What those portfolios hold."""
        ids = uuids(portfolios)
        rows = (await self._copy("positions_of", POSITION_ROW, day, ids))[::-1]
        return rows, await self._numbers(symbols, rows, "symbols_of", ids)

    async def _numbers(
        self, symbols: Symbols, rows: NDArray[np.void], unknown: str, *parameters: object
    ) -> NDArray[np.int32]:
        """The numbers of the rows' symbols; where some are unknown, that statement gives them all."""
        keys = rows["symbol"].astype(np.int64)
        numbers = await asyncio.to_thread(symbols.numbers, keys)
        if (numbers < 0).any():
            found = await self._connection.fetch(statement(unknown), *parameters)
            symbols.learn({row["number"]: row["symbol"] for row in found})
            numbers = symbols.numbers(keys)
        return numbers

    async def _copy(self, name: str, kind: "np.dtype[np.void]", *parameters: object) -> NDArray[np.void]:
        copied = bytearray()

        async def take(data: bytes) -> None:
            copied.extend(data)

        query = "\n".join(line for line in statement(name).splitlines() if not line.startswith("--"))
        # asyncpg puts the parameters into the text, in its comments too
        await self._connection.copy_from_query(query, *parameters, output=take, format="binary")
        return records(copied, kind)


def _first_of_each(ids: Ids) -> NDArray[np.intp]:
    """Where each id begins, among ids of which the same are neighbours."""
    differs = np.ones(len(ids), np.bool_)
    differs[1:] = ids[1:] != ids[:-1]
    return np.flatnonzero(differs)


def _block(portfolios: Ids, rows: NDArray[np.void], numbers: NDArray[np.int32]) -> Block:
    """The portfolios, in key order, with those of the rows' positions that are open."""
    is_open = rows["units"] != 0
    rows = rows[is_open]
    firsts = _first_of_each(rows["id"])
    counts = np.zeros(len(portfolios), np.int64)
    counts[np.searchsorted(portfolios, rows["id"][firsts])] = np.diff(firsts, append=len(rows))
    return Block(
        np.ascontiguousarray(portfolios),
        np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
        numbers[is_open],
        rows["units"].astype(np.int64),
    )
