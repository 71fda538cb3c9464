"""The cost of each property of a table (write-ahead log, checks, primary key), and of the tick's update.

Each COPY fills a table that has one more of these properties.
"""

from datetime import UTC, datetime
from uuid import UUID

import asyncpg

from bench.cost import Cost, Machine
from bench.tracker.limit import TABLE, Limit
from service.database.fenced_writes import PLANS
from service.database.sql import statement

COPIES = (
    ("COPY into an unlogged table without index and checks", "create unlogged table step (like portfolio_live)"),
    ("+ write-ahead log", "create table step (like portfolio_live)"),
    ("+ checks", "create table step (like portfolio_live including constraints)"),
    ("+ primary key and half-filled pages: the limit's COPY", TABLE.replace("limit_live", "step")),
)
STAGE = """
insert into staged_value select portfolio_id, value, day_open, priced_fraction, true, stale, oldest_price_at
from portfolio_live order by portfolio_id
"""
UPDATES = (
    ("the tick's update, of a table without the foreign key", "public.step"),
    ("the tick's update, of portfolio_live", "public.portfolio_live"),
)


async def steps(dsn: str, limit: Limit, machine: Machine) -> list[tuple[str, Cost]]:
    """Measure each step in a transaction of its own. Updates run twice, and the second run is kept."""
    connection = await asyncpg.connect(dsn)
    found = []
    for name, table in COPIES:
        await connection.execute(f"drop table if exists step; {table}")
        with machine.cost() as cost:
            await connection.copy_to_table("step", source=limit.rows, format="binary", timeout=None)
        found.append((name, cost))
    await connection.execute(statement("stage_table"))
    first, last = UUID(int=0), UUID(int=2**128 - 1)
    for name, table in UPDATES:
        update = statement("update_live").replace("public.portfolio_live", table)
        for _ in range(2):  # the first update fills the free halves of the pages
            async with connection.transaction():
                await connection.execute(STAGE)
                await connection.execute(PLANS)
                now = datetime.now(UTC)
                with machine.cost() as cost:
                    await connection.execute(update, now.date(), now, 1, first, last)
        found.append((name, cost))
    await connection.execute("drop table step")
    await connection.close()
    return found
