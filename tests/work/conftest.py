"""A migrated database with a store on it, and the world around the work made of fakes: clock, prices, terms."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from ops.local.servers import PostgresServer
from service.database import Connection
from service.migrations import migrate
from service.positions import Book, uuids
from service.prices import Price
from service.records import PositionEntry
from service.store import Store
from service.work_metrics import WorkMetrics
from tests.waiting import eventually

USER = UUID(int=0xA)
LONG_AGO = date(2020, 1, 1)


class Over(Exception):
    """Stands for `sidecar.client.TermOver`."""


@dataclass
class Clock:
    """Time that passes only when somebody sleeps; every sleep is noted."""

    time: datetime
    slept: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += timedelta(seconds=seconds)


@dataclass
class FakeTerm:
    """A term that is over when the clock says so, or at its n-th check."""

    token: int = 1
    holder: str = "one"
    name: str = "lease"
    clock: Clock | None = None
    until: datetime | None = None
    checks: int | None = None

    def check(self) -> None:
        if self.checks is not None:
            self.checks -= 1
            if self.checks < 0:
                raise Over
        if self.clock is not None and self.until is not None and self.clock.time >= self.until:
            raise Over


class ScriptedPrices:
    """Gives what the script says for each question; the script may raise, or do something to the world first.

    A latest price is of the moment it is asked for, unless the script says otherwise.
    """

    def __init__(
        self,
        latest: Callable[[], Awaitable[Mapping[str, str | Price]]] | None = None,
        closes: Callable[[date], Awaitable[Mapping[str, str]]] | None = None,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self._latest = latest
        self._closes = closes
        self._now = now
        self.asked: list[set[str]] = []

    async def latest(self, symbols: Collection[str]) -> dict[str, Price]:
        assert self._latest is not None and self._now is not None
        self.asked.append(set(symbols))
        answer = await self._latest()
        at = self._now()
        return {
            symbol: price if isinstance(price, Price) else Price(symbol, Decimal(price), at)
            for symbol, price in answer.items()
        }

    async def closes(self, symbols: Collection[str], day: date) -> dict[str, Price]:
        assert self._closes is not None
        self.asked.append(set(symbols))
        at = datetime(day.year, day.month, day.day, 21, tzinfo=UTC)
        answer = await self._closes(day)
        return {symbol: Price(symbol, Decimal(answer[symbol]), at) for symbol in symbols if symbol in answer}

    async def aclose(self) -> None:
        """Nothing is held open."""


CLEAN = """
    drop function if exists meddle cascade;
    alter table if exists away rename to job_run;
    delete from portfolio;
    delete from position_change;
    delete from price_live;
    delete from price_eod;
    delete from symbol_refusal;
    delete from job_run;
    delete from lease_fence;
    delete from market_override;
    do $$
    declare
        name text;
    begin
        for name in select tablename from pg_tables where schemaname = 'partitions' loop
            execute format('drop table partitions.%I', name);
        end loop;
    end $$;
"""
"""Back to what the migrations made; a test that meddles does it with a function `meddle`, or renames a table `away`."""


@pytest.fixture(scope="session")
def migrated_once(postgres: PostgresServer) -> str:
    """The address of a migrated database. One a session: to make one takes ten times as long as most tests."""
    dsn = postgres.url.rsplit("/", 1)[0] + "/migrated"

    async def make() -> None:
        admin = await asyncpg.connect(postgres.url)
        await admin.execute("create database migrated")
        await admin.close()
        await migrate(dsn)

    asyncio.run(make())
    return dsn


@pytest.fixture
async def migrated(migrated_once: str) -> AsyncIterator[str]:
    """The address of a migrated database that is clean again after the test."""
    yield migrated_once
    cleaner = await asyncpg.connect(migrated_once)
    await cleaner.execute(CLEAN)
    await cleaner.close()


@pytest.fixture
async def store(migrated: str) -> AsyncIterator[Store]:
    # A test may look for long, on another connection, before a transaction of this one goes on.
    async with await Store.connect(migrated, idle_limit=20.0) as store:
        yield store


@pytest.fixture
async def raw(migrated: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection of nobody's, to look and to meddle with."""
    connection = await asyncpg.connect(migrated)
    yield connection
    await connection.close()


@pytest.fixture
def metrics() -> WorkMetrics:
    return WorkMetrics(CollectorRegistry())


def entry(portfolio: int, symbol: str, quantity: str, valid_from: date = LONG_AGO, user: UUID = USER) -> PositionEntry:
    return PositionEntry(UUID(int=portfolio), user, symbol, Decimal(quantity), valid_from)


def holdings(book: Book) -> dict[UUID, tuple[tuple[str, Decimal], ...]]:
    """What a book says that each portfolio holds, symbols in alphabetical order."""
    found = {}
    for block in book.blocks:
        for portfolio_id, first, behind in zip(uuids(block.ids), block.starts, block.starts[1:], strict=False):
            positions = zip(block.symbols[first:behind], block.quantities[first:behind], strict=True)
            held = ((book.symbols[int(number)], Decimal(int(quantity)).scaleb(-8)) for number, quantity in positions)
            found[portfolio_id] = tuple(sorted(held))
    return found


async def held(store: Store, day: date) -> dict[UUID, tuple[tuple[str, Decimal], ...]]:
    """What each portfolio holds on that date."""
    return holdings(await store.load_positions(day))


async def somebody_waits_for_a_lock(raw: Connection, many: int = 1) -> None:
    """Or so many do, each on a connection of its own."""
    await eventually(lambda: raw.fetchval("select count(*) >= $1 from pg_locks where not granted", many))
