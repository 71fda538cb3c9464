"""Positions from the database: loaded whole, in key order, and kept up to date from what changed since.

The reader's place in the changes is a snapshot of the database. The next look asks for the changes that this snapshot
did not see, whichever order their transactions were committed in, and reads the portfolios that they name anew. A
transaction sees one moment: what is read, and the snapshot that it is true of, belong together.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import date
from typing import TypeAlias
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from service.copy_format import ID_ROW, POSITION_ROW, records
from service.database import Connection
from service.positions import PORTFOLIOS_A_BLOCK, Block, Book, Ids, Symbols, id_array, uuids
from service.sql import statement

Progress = Callable[[int, int], None]
"""Told how many portfolios are done, and of how many, after each block, of a load also at its start; may raise, which
ends the reading."""

Held: TypeAlias = tuple[NDArray[np.void], NDArray[np.int32]]
"""Positions as `POSITION_ROW`s in key order, closed ones included, and the numbers of their symbols."""

RELOAD_ABOVE = 0.2
"""The share of portfolios that may have changed for reading them one by one to be quicker than reading all."""


class PositionReader:
    """Reads within one transaction, which must be repeatable-read."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def load(self, day: date, progress: Progress) -> Book:
        """Every portfolio, with what it holds on that date."""
        symbols = Symbols()
        seen: str = await self._connection.fetchval("select pg_current_snapshot()::text")
        blocks = []
        done, total = 0, await self._count(None)
        progress(done, total)
        async for after, portfolios in self._ranges(None, PORTFOLIOS_A_BLOCK):
            held = await self._between(symbols, day, after, portfolios)
            blocks.append(await asyncio.to_thread(_block, portfolios, *held))
            done += len(portfolios)
            progress(done, max(done, total))
        return Book(day, symbols, blocks, seen)

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
        blocks = []
        done, total = 0, await self._count(after)
        async for start, portfolios in self._ranges(after, portfolios_a_block):
            wanted = portfolios
            if without_row is not None:
                last = uuids(portfolios[-1:])[0]
                wanted = await self._ids("portfolios_without_row", start, last, day, without_row, or_stale)
            if len(wanted) == len(portfolios):  # a range is read in half the time
                rows, numbers = await self._between(symbols, day, start, portfolios)
            else:
                rows, numbers = await self._of(symbols, day, wanted)
            if len(rows):
                opened = rows["id"][_first_of_each(rows["id"])]
                blocks.append(await asyncio.to_thread(_block, opened, rows, numbers))
            done += len(portfolios)
            progress(done, max(done, total))
        return Book(day, symbols, blocks, "")

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

    async def _count(self, after: UUID | None) -> int:
        count: int = await self._connection.fetchval(
            "select count(*) from portfolio where $1::uuid is null or id > $1", after
        )
        return count

    async def _ranges(self, after: UUID | None, size: int) -> AsyncIterator[tuple[UUID | None, Ids]]:
        """All portfolios after that one, `size` at a time, each time with the one before them."""
        while len(portfolios := await self._ids("portfolios_after", after, size)):
            yield after, portfolios
            after = uuids(portfolios[-1:])[0]

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
