"""Positions from the database: loaded completely, in key order, and then updated from the changes.

The table `position_change` records which portfolios each transaction changed. The reader's checkpoint is a snapshot of
the database. An update asks for the changes that the snapshot does not contain, and reads the changed portfolios again.
The positions and their checkpoint come from the same transaction. A snapshot consists of transaction ids of one server,
so after a restart, a crash of a backend, a failover or a restore everything is loaded again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import date
from uuid import UUID

import numpy as np

from runtime.escape import one_line
from service.database.connection import ERROR_SHOWN, Connection, run_concurrently
from service.database.copy_format import PositionRows, read_ids, read_position_rows
from service.database.sql import statement
from service.portfolio.positions import (
    PORTFOLIOS_PER_BLOCK,
    Block,
    Book,
    Checkpoint,
    HashCollision,
    Ids,
    Symbols,
    id_array,
    starts_of,
    uuids,
)

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Callback with the number of portfolios done and their total, called after each block and at the start of a load. It
may raise, which ends the reading."""

RELOAD_ABOVE = 0.2
"""Share of changed portfolios above which reading all portfolios is faster than reading the changed ones."""


def no_progress(_done: int, _total: int) -> None:
    """Ignore the progress; the default callback."""


class PositionReader:
    """Reads within one repeatable-read transaction.

    `others` are readers on other connections with the same snapshot of the database. They share the loading, so that
    one connection receives data while the data of another is processed.
    """

    def __init__(self, connection: Connection, others: Sequence["PositionReader"] = ()) -> None:
        self._connection = connection
        self._readers = self, *others

    async def load(self, day: date, progress: Progress) -> Book:
        """Every portfolio with its positions on that date."""
        symbols, checkpoint = Symbols(), await self._checkpoint()

        async def read(reader: PositionReader, start: UUID | None, portfolios: Ids) -> Block:
            return _extended(portfolios, await reader._between(symbols, day, start, portfolios))

        return Book(day, symbols, await self._blocks(None, PORTFOLIOS_PER_BLOCK, read, progress), checkpoint)

    async def load_opened(
        self,
        day: date,
        after: UUID | None,
        *,
        without_row: str | None,
        or_stale: bool,
        portfolios_per_block: int,
        progress: Progress,
    ) -> Book:
        """The portfolios after `after` that had opened a position by that date; see `Store.opened_positions`."""
        symbols = Symbols()

        async def read(reader: PositionReader, start: UUID | None, portfolios: Ids) -> Block | None:
            wanted = portfolios
            if without_row is not None:
                last = uuids(portfolios[-1:])[0]
                wanted = await reader._ids("portfolios_without_row", start, last, day, without_row, or_stale)
            if len(wanted) == len(portfolios):  # reading a range takes half the time of reading a list of ids
                block = await reader._between(symbols, day, start, portfolios)
            else:
                block = await reader._of(symbols, day, wanted)
            return block if len(block) else None

        return Book(
            day, symbols, await self._blocks(after, portfolios_per_block, read, progress), await self._checkpoint()
        )

    async def update(self, book: Book, day: date, progress: Progress) -> Book:
        """The book at that date with every committed change: either `book` itself, updated, or a new book."""
        checkpoint = await self._checkpoint()
        if checkpoint.origin != book.checkpoint.origin:
            return await self.load(day, progress)
        found = await self._connection.fetchval(statement("position_changes"), book.checkpoint.snapshot, book.day, day)
        changed = np.unique(id_array(found))
        if len(changed) > max(len(book) * RELOAD_ABOVE, PORTFOLIOS_PER_BLOCK):
            return await self.load(day, progress)
        fresh = []
        try:
            for first in range(0, len(changed), PORTFOLIOS_PER_BLOCK):
                existing = await self._ids("existing_portfolios", uuids(changed[first : first + PORTFOLIOS_PER_BLOCK]))
                fresh.append(_extended(existing, await self._of(book.symbols, day, existing)))
        except HashCollision as error:
            logger.warning("all positions are loaded again: %s", one_line(error, ERROR_SHOWN))
            return await self.load(day, progress)
        book.replace(changed, Block.joined(fresh))
        book.checkpoint, book.day = checkpoint, day
        return book

    async def _checkpoint(self) -> Checkpoint:
        (row,) = await self._connection.fetch(statement("checkpoint"))
        return Checkpoint(**row)

    async def _blocks(
        self,
        after: UUID | None,
        size: int,
        read: Callable[["PositionReader", UUID | None, Ids], Awaitable[Block | None]],
        progress: Progress,
    ) -> list[Block]:
        """The results of `read` for all portfolios after `after`, `size` at a time, in order, without the None results.

        Each call of `read` gets a reader, the portfolio before its part, and the ids of its part.
        """
        ids = await self._ids("portfolios_after", after)
        parts = [ids[first : first + size] for first in range(0, len(ids), size)]
        blocks: list[Block | None] = [None] * len(parts)
        indexes, done = iter(range(len(parts))), 0
        progress(done, len(ids))

        async def work(reader: PositionReader) -> None:
            nonlocal done
            for index in indexes:
                start = uuids(parts[index - 1][-1:])[0] if index else after
                blocks[index] = await read(reader, start, parts[index])
                done += len(parts[index])
                progress(done, len(ids))

        await run_concurrently(work(reader) for reader in self._readers)
        return [block for block in blocks if block is not None]

    async def _ids(self, name: str, *parameters: object) -> Ids:
        return read_ids(await self._copy(name, *parameters))

    async def _between(self, symbols: Symbols, day: date, after: UUID | None, portfolios: Ids) -> Block:
        """All portfolios after `after`, up to the last of `portfolios`, that had opened a position by `day`."""
        last = uuids(portfolios[-1:])[0]
        copied = await self._copy("positions_between", day, after, last, symbols.seed)
        return await self._block(symbols, copied, "symbols_between", after, last)

    async def _of(self, symbols: Symbols, day: date, portfolios: Ids) -> Block:
        """Those portfolios that had opened a position by that date, with their positions."""
        ids = uuids(portfolios)
        copied = await self._copy("positions_of", day, ids, symbols.seed)
        return await self._block(symbols, copied, "symbols_of", ids)

    async def _block(self, symbols: Symbols, copied: bytearray, unknown: str, *parameters: object) -> Block:
        """The block in copied data. If it has unknown symbols, the statement `unknown` reads them first."""
        held = await asyncio.to_thread(read_position_rows, copied)
        block = await asyncio.to_thread(_open_positions, held, symbols)
        if (block.symbols < 0).any():
            found = await self._connection.fetch(statement(unknown), *parameters, symbols.seed)
            symbols.learn({row["symbol"]: row["number"] for row in found})
            block = await asyncio.to_thread(_open_positions, held, symbols)
        return block

    async def _copy(self, name: str, *parameters: object) -> bytearray:
        copied = bytearray()

        async def take(data: bytes) -> None:
            copied.extend(data)

        # Comments are removed, because asyncpg substitutes parameters in comments too.
        query = "\n".join(line for line in statement(name).splitlines() if not line.startswith("--"))
        await self._connection.copy_from_query(query, *parameters, output=take, format="binary")
        return copied


def _open_positions(held: PositionRows, symbols: Symbols) -> Block:
    """The portfolios with their open positions. An unknown symbol has the number -1."""
    numbers = symbols.numbers(held.positions["symbol"].astype(np.int64))
    quantities, counts = held.positions["units"].astype(np.int64), held.counts
    is_open = quantities != 0
    if not is_open.all():
        until = np.concatenate([np.zeros(1, np.int64), np.cumsum(is_open)])
        counts = np.diff(until[starts_of(counts)])
        numbers, quantities = numbers[is_open], quantities[is_open]
    return Block(held.ids, starts_of(counts), numbers, quantities)


def _extended(portfolios: Ids, block: Block) -> Block:
    """The block extended to all of `portfolios`, which are in key order and contain the block's portfolios."""
    if len(block) == len(portfolios):
        return block
    counts = np.zeros(len(portfolios), np.int64)
    counts[np.searchsorted(portfolios, block.ids)] = block.counts
    return Block(portfolios, starts_of(counts), block.symbols, block.quantities)
