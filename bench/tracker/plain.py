"""The plain implementation on a sample: a Python loop with `decimal`, and executemany."""

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import asyncpg

from bench.cost import Cost, Machine
from bench.tracker.stand_ins import Prices

SAMPLE = 10_000


async def plain(dsn: str, machine: Machine) -> tuple[Cost, Cost, Cost]:
    """Measure the plain implementation on a sample, one portfolio at a time.

    Returns the costs of loading, of a tick, and of an EOD capture (loading, a tick, and the rows of the day).
    """
    connection = await asyncpg.connect(dsn)
    with machine.cost() as load:
        held: dict[UUID, list[tuple[str, Decimal]]] = {}
        for row in await connection.fetch(
            "select portfolio_id, symbol, quantity from position where portfolio_id in "
            "(select id from portfolio order by id limit $1) order by portfolio_id",
            SAMPLE,
        ):
            held.setdefault(row["portfolio_id"], []).append((row["symbol"], row["quantity"]))
    prices = await Prices().latest({symbol for positions in held.values() for symbol, _ in positions})
    now = datetime.now(UTC)
    with machine.cost() as tick:
        async with connection.transaction():
            values = [
                (portfolio_id, now.date(), now, sum(quantity * prices[symbol].price for symbol, quantity in positions))
                for portfolio_id, positions in held.items()
            ]
            await connection.executemany(
                "insert into portfolio_live as live (portfolio_id, session_date, as_of, value, day_open, day_high, "
                "day_low, priced_fraction, stale, oldest_price_at, token) "
                "values ($1, $2, $3, $4, $4, $4, $4, 1, false, $3, 1) on conflict (portfolio_id) do update "
                "set as_of = excluded.as_of, value = excluded.value, "
                "day_high = greatest(live.day_high, excluded.value), day_low = least(live.day_low, excluded.value)",
                values,
            )
    with machine.cost() as rows:
        async with connection.transaction():
            await connection.execute("select make_history_partition('2020-01-02')")
            await connection.executemany(
                "insert into portfolio_history (portfolio_id, date, kind, value, priced_fraction, stale, origin, "
                "token) values ($1, '2020-01-02', 'daily_eod', $2, 1, false, 'captured', 1)",
                [(portfolio_id, value) for portfolio_id, _, _, value in values],
            )
    await connection.close()
    return load, tick, load + tick + rows
