"""The limit of a tick: the plain COPY of the same rows, committed, and the valuation alone in NumPy.

The plain UPDATE of the same rows, committed, is measured beside them.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import asyncpg

from bench.cost import Cost, Machine
from service.database.fenced_writes import PLANS
from service.portfolio.positions import Book
from service.portfolio.valuation import Mark, Marks, value_block
from service.prices import Price

TABLE = "create table limit_live (like public.portfolio_live including all) with (fillfactor = 50)"
"""A table with the columns, checks, primary key and half-filled pages of `portfolio_live`, without its foreign key."""
UPDATE = """
update public.portfolio_live as live set
    session_date = row.session_date, as_of = row.as_of, value = row.value, day_open = row.day_open,
    day_high = row.day_high, day_low = row.day_low, priced_fraction = row.priced_fraction, stale = row.stale,
    oldest_price_at = row.oldest_price_at, token = row.token
from limit_live as row
where live.portfolio_id = row.portfolio_id
"""
"""The UPDATE that sets every row of `portfolio_live` to its copy, without a comparison of values."""


class Limit:
    """The rows of `portfolio_live` in a file, and a table into which COPY writes them."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]", rows: Path, machine: Machine) -> None:
        self._connection = connection
        self._machine = machine
        self.rows = rows

    @classmethod
    async def create(cls, dsn: str, folder: Path, machine: Machine) -> Self:
        """Create the table."""
        connection = await asyncpg.connect(dsn)
        await connection.execute(TABLE)
        return cls(connection, folder / "rows", machine)

    async def aclose(self) -> None:
        """Drop the table and close the connection."""
        await self._connection.execute("drop table limit_live")
        await self._connection.close()

    async def copy(self) -> Cost:
        """Copy the rows into the empty table and commit them; returns the cost.

        The first call saves the rows of `portfolio_live` in a file. Later calls use that file, since the rows of later
        ticks have the same size.
        """
        if not self.rows.exists():
            query = "select * from portfolio_live order by portfolio_id"
            await self._connection.copy_from_query(query, output=self.rows, format="binary", timeout=None)
        await self._connection.execute("truncate limit_live")
        with self._machine.cost() as cost:
            await self._connection.copy_to_table("limit_live", source=self.rows, format="binary", timeout=None)
        return cost

    async def update(self) -> Cost:
        """Update every row of `portfolio_live` to its copy and commit; returns the cost."""
        with self._machine.cost() as cost:
            async with self._connection.transaction():
                await self._connection.execute(PLANS)
                await self._connection.execute(UPDATE, timeout=None)
        return cost

    def value(self, book: Book, prices: dict[str, Price]) -> Cost:
        """Value every portfolio, one block after another; returns the cost."""
        now = datetime.now(UTC)
        marks = {name: Mark(price.price, now, stale=False, open=price.price) for name, price in prices.items()}
        by_number = Marks.of(book.symbols, marks)
        with self._machine.cost() as cost:
            for block in book.blocks:
                value_block(block, by_number)
        return cost
