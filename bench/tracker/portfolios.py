"""Portfolios and positions that fill a database."""

from datetime import date
from uuid import UUID

import asyncpg

from bench.report import progress

POSITIONS, SYMBOLS, STEP = 20, 8_000, 20_000

FILL = """
insert into position (portfolio_id, symbol, valid_from, quantity)
select id, 'S' || lpad((((hashtextextended(id::text, 0) & 1073741823) + k * 397) % {symbols})::text, 4, '0'),
    date '{since}', ((hashtextextended(id::text || k, 0) & 1073741823) % 100000) * 0.01 + 0.5
from (select id from portfolio where id > '{after}' order by id limit {count}) as few,
    generate_series(1, {positions}) as k
"""


async def fill(dsn: str, portfolios: int, since: date = date(2025, 1, 2)) -> None:
    """Insert the portfolios and their positions, which are valid from `since`."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("set session_replication_role = replica")  # no triggers, no foreign keys
    await connection.execute(
        "insert into portfolio (id, user_id, name) select md5('p' || n)::uuid, md5('u' || n / 3)::uuid, 'P' "
        "from generate_series(1, $1::int) as n order by 1",
        portfolios,
    )
    key = await connection.fetchval(
        "select pg_get_constraintdef(oid) from pg_constraint where conname = 'position_pkey'"
    )
    index = await connection.fetchval("select pg_get_indexdef('position_valid_from'::regclass)")
    await connection.execute("alter table position drop constraint position_pkey; drop index position_valid_from")
    ids = [row["id"] for row in await connection.fetch("select id from portfolio order by id")]
    with progress(portfolios, f"filling {portfolios:,}", "portfolio") as bar:
        for first in range(0, portfolios, STEP):
            after = ids[first - 1] if first else UUID(int=0)
            await connection.execute(
                FILL.format(after=after, count=STEP, symbols=SYMBOLS, positions=POSITIONS, since=since)
            )
            bar.update(min(STEP, portfolios - first))
    await connection.execute("set maintenance_work_mem = '1GB'")
    await connection.execute(f"alter table position add constraint position_pkey {key}; {index}")
    await connection.execute("vacuum analyze portfolio")
    await connection.execute("vacuum analyze position")
    await connection.close()
