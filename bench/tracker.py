"""The cost of a tick, of loading and of the closing capture at scale: `python -m bench.tracker [PORTFOLIOS]`.

Runs the service's own code on a new Postgres with durable writes. The comparison is a Python loop with `decimal` and
executemany on a sample, whose time is scaled up. Each figure includes the processor seconds of the service and of
Postgres, since other load on the machine distorts the elapsed time.
"""

import asyncio
import os
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import aiohttp
import asyncpg
import psutil
import uvloop
from prometheus_client import CollectorRegistry
from tqdm import tqdm

from bench.cost import Cost, Machine
from ops.local.servers import PostgresServer, free_port
from service.database.migrations import migrate
from service.database.store import Store
from service.market.calendar import AroundTheClockCalendar
from service.portfolio.positions import uuids
from service.prices import Price
from service.work.jobs import Jobs
from service.work.metrics import WorkMetrics
from service.work.tracker import Tracker

POSITIONS, SYMBOLS = 20, 8_000
TICKS, CHANGED, LISTENERS, SAMPLE, STEP = 5, 1_000, 1_000, 10_000, 20_000
SERVER = ("shared_buffers=1GB", "max_wal_size=4GB")

FILL = """
insert into position (portfolio_id, symbol, valid_from, quantity)
select id, 'S' || lpad((((hashtextextended(id::text, 0) & 1073741823) + k * 397) % {symbols})::text, 4, '0'),
    date '{since}', ((hashtextextended(id::text || k, 0) & 1073741823) % 100000) * 0.01 + 0.5
from (select id from portfolio order by id offset {first} limit {count}) as few, generate_series(1, {positions}) as k
order by 1, 2
on conflict do nothing
"""


TOKEN = time.time_ns() // 1000
"""A token in the sidecar's form: microseconds since the epoch."""


@dataclass
class Term:
    """A term that never ends."""

    name: str
    token: int = TOKEN
    holder: str = "bench"

    def check(self) -> None:
        """Do nothing, since the term never ends."""


@dataclass
class Prices:
    """A price source with new prices in each answer; it keeps the time of its last answer."""

    asked: int = 0
    answered: float = 0.0
    before: tuple[float, float] = (0.0, 0.0)
    machine: Machine | None = None

    async def latest(self, symbols: Collection[str]) -> dict[str, Price]:
        """Return a new price for each symbol."""
        self.asked += 1
        now = datetime.now(UTC)
        prices = {
            symbol: Price(symbol, Decimal(500 + hash(symbol) % 90_000 + self.asked % 5).scaleb(-2), now)
            for symbol in symbols
        }
        if self.machine is not None:
            self.before = self.machine.processor_seconds()
        self.answered = time.perf_counter()
        return prices

    async def closes(self, symbols: Collection[str], day: date) -> dict[str, Price]:  # noqa: ARG002 - of any day
        """Return a new price for each symbol, whatever the day."""
        return await self.latest(symbols)

    async def aclose(self) -> None:
        """Do nothing, since no connection is open."""


async def fill(dsn: str, portfolios: int, since: date = date(2025, 1, 2)) -> None:
    """Insert the portfolios and their positions, which are valid from `since`."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("set session_replication_role = replica")  # no triggers, no foreign keys
    await connection.execute(
        "insert into portfolio (id, user_id, name) select md5('p' || n)::uuid, md5('u' || n / 3)::uuid, 'P' "
        "from generate_series(1, $1::int) as n order by 1",
        portfolios,
    )
    with tqdm(total=portfolios, unit="portfolio", desc="filling", disable=None) as bar:
        for first in range(0, portfolios, STEP):
            await connection.execute(
                FILL.format(first=first, count=STEP, symbols=SYMBOLS, positions=POSITIONS, since=since)
            )
            bar.update(min(STEP, portfolios - first))
    await connection.execute("vacuum analyze portfolio")
    await connection.execute("vacuum analyze position")
    await connection.close()


async def ticks(store: Store, machine: Machine, portfolios: int) -> tuple[Cost, Cost, Cost]:
    """Run a term of the tracker; returns the costs of loading, of the median tick (prices to commit), of an update."""
    prices = Prices(machine=machine)
    found: list[Cost] = []
    loading = tqdm(total=portfolios, unit="portfolio", desc="loading", disable=None)

    class Enough(Exception):
        """Count the ticks."""

    ahead = timedelta()

    def now() -> datetime:
        return datetime.now(UTC) + ahead

    async def sleep(seconds: float) -> None:
        nonlocal ahead
        ahead += timedelta(seconds=seconds)  # the next tick comes at once
        wall = time.perf_counter() - prices.answered
        service, postgres = machine.processor_seconds()
        found.append(Cost(wall, service - prices.before[0], postgres - prices.before[1]))
        print(f"  tick {len(found)}: {wall:.2f} s", file=sys.stderr)
        if len(found) > TICKS:
            raise Enough

    def progress(done: int, _: int) -> None:
        loading.update(done - loading.n)

    today = AroundTheClockCalendar().last_closed(datetime.now(UTC)).date
    with machine.cost() as load, loading:
        book = await store.load_positions(today, progress)
    async with store._connection() as connection:  # noqa: SLF001 - what a user's request would do
        await connection.execute(
            "update public.position set quantity = quantity + 1 where portfolio_id = any($1)",
            uuids(book.blocks[0].ids)[:CHANGED],
        )
    with machine.cost() as update:
        book = await store.update_positions(book, today)
    del book
    tracker = Tracker(
        store, prices, AroundTheClockCalendar(), WorkMetrics(CollectorRegistry()), interval=30.0, now=now, sleep=sleep
    )
    with suppress(Enough):
        await tracker.run(Term("background_services"))
    steady = sorted(found[1:], key=lambda cost: cost.wall)  # the first one inserts every row
    return load, steady[len(steady) // 2], update


async def capture(store: Store, machine: Machine, portfolios: int) -> Cost:
    """Run the closing capture of the last session; returns its cost."""
    calendar = AroundTheClockCalendar()
    jobs = Jobs(store, Prices(), calendar)
    term = Term("daily_scheduler")
    await store.claim_fence(term)
    bar = tqdm(total=portfolios, unit="portfolio", desc="closing", disable=None)

    def progress(done: int, _: int) -> None:
        bar.update(done - bar.n)

    with bar, machine.cost() as cost:
        rows = await jobs.run("eod", calendar.last_closed(datetime.now(UTC)), term, progress)
    if rows != portfolios:
        raise SystemExit(f"{rows} rows for {portfolios} portfolios")
    return cost


async def plain(dsn: str, machine: Machine) -> tuple[Cost, Cost, Cost]:
    """Measure the plain way on a sample, one portfolio at a time: loading, a tick, a day's rows."""
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


@asynccontextmanager
async def service(dsn: str) -> AsyncIterator[str]:
    """Run `python -m service` on the database, without a sidecar, so it never leads."""
    port = free_port()
    environment = {
        "DATABASE_URL": dsn,
        "API_BIND": f"127.0.0.1:{port}",
        "INTERNAL_BIND": f"127.0.0.1:{free_port()}",
        "SIDECAR_URL": "http://127.0.0.1:9",
        "AUTH": "off",
        "PRICE_SOURCE": "simulated",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", env={**os.environ, **environment, "LOG_LEVEL": "error"}
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def streams(dsn: str, store: Store) -> float:
    """Return the seconds from a tick's commit until the last listener on one task has the values."""
    connection = await asyncpg.connect(dsn)
    ids = [row["id"] for row in await connection.fetch("select id from portfolio order by id limit $1", LISTENERS)]
    heard: list[float] = []
    ready = asyncio.Semaphore(0)

    async def listen(session: aiohttp.ClientSession, url: str, portfolio_id: UUID) -> None:
        for _ in range(100):
            try:
                async with session.get(f"{url}/portfolios/{portfolio_id}/stream") as response:
                    if response.status != 200:
                        raise SystemExit(f"{response.status}: {await response.text()}")
                    events = 0
                    async for line in response.content:
                        events += line.startswith(b"data:")
                        if events == 1 and line.startswith(b"data:"):
                            ready.release()
                        if events == 2:
                            heard.append(time.perf_counter())
                            return
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.1)
        raise SystemExit("the service does not answer")

    async with (
        service(dsn) as url,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout()) as session,
        asyncio.TaskGroup() as tasks,
    ):
        for portfolio_id in ids:
            tasks.create_task(listen(session, url, portfolio_id))
        for _ in ids:
            await ready.acquire()
        newer = Term("background_services", TOKEN + 1)
        await store.claim_fence(newer)
        async with store.fenced(newer):
            pass
        await connection.execute("update portfolio_live set as_of = now(), token = 2 where portfolio_id = any($1)", ids)
        committed = time.perf_counter()
        await connection.execute("notify portfolio_live")
    await connection.close()
    return max(heard) - committed


async def measure(portfolios: int) -> None:
    """Measure everything and print the table."""
    started = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as folder, PostgresServer(Path(folder), settings=SERVER) as server:
        if server.process is None:
            raise SystemExit("Postgres did not start")
        machine = Machine(psutil.Process(server.process.pid))
        await migrate(server.url)
        await fill(server.url, portfolios)
        async with await Store.connect(server.url, call_limit=120) as store:
            load, tick, update = await ticks(store, machine, portfolios)
            tick_memory = peak()
            eod = await capture(store, machine, portfolios)
            eod_memory = peak()
            slowest = await streams(server.url, store)
        plain_costs = [cost.scaled(portfolios / SAMPLE) for cost in await plain(server.url, machine)]
    busy = os.getloadavg()[0]
    print(
        f"\n{portfolios:,} portfolios of {POSITIONS} positions over {SYMBOLS:,} symbols, {started:%Y-%m-%d %H:%M} UTC"
    )
    print(
        f"{os.cpu_count()} processors, load {busy:.1f} at the end; seconds; plain: {SAMPLE:,} portfolios, scaled up\n"
    )
    print(f"{'':24}{'clock':>8}{'service':>9}{'Postgres':>9}{'plain':>9}{'ratio':>8}{'of processors':>15}")
    rows = zip(("loading", "a tick", "EOD, all of it"), (load, tick, eod), plain_costs, strict=True)
    for name, ours, theirs in rows:
        print(
            f"{name:24}{ours.wall:8.2f}{ours.service:9.2f}{ours.postgres:9.2f}{theirs.wall:9.1f}"
            f"{theirs.wall / ours.wall:7.1f}x{theirs.processor / ours.processor:14.1f}x"
        )
    print(f"{f'{CHANGED:,} changed portfolios':24}{update.wall:8.2f}{update.service:9.2f}{update.postgres:9.2f}")
    print(f"{f'{LISTENERS:,} listeners served':24}{slowest:8.2f}   after the commit, the last of them, over HTTP")
    print(f"{'memory, at most':24}{tick_memory:8.0f} MiB with ticks, {eod_memory:.0f} MiB with EOD beside")


def peak() -> float:
    """Return the maximum memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(arguments: list[str]) -> None:
    """Measure the number of portfolios in the argument."""
    try:
        portfolios = int(arguments[0]) if arguments else 100_000
    except ValueError:
        portfolios = 0
    if portfolios < SAMPLE:
        print(f"usage: python -m bench.tracker [PORTFOLIOS]   a whole number from {SAMPLE}", file=sys.stderr)
        raise SystemExit(2)
    uvloop.run(measure(portfolios))  # as the service does


if __name__ == "__main__":
    main(sys.argv[1:])
