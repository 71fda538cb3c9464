"""Owners read their own rows, and only the service writes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import asyncpg
import pytest

from service.database.connection import Connection
from service.database.store import Store
from service.portfolio.records import Quote
from tests.service.portfolio.reference import nothing_held, parts, worth
from tests.support.positions import entry
from tests.support.work_fakes import FakeTerm

ALICE, BOB = UUID(int=0xA11CE), UUID(int=0xB0B)
DAY = date(2026, 3, 2)
NOON = datetime(2026, 3, 2, 17, tzinfo=UTC)
OWNED = (
    "portfolio",
    "position",
    "portfolio_live",
    "portfolio_intraday",
    "portfolio_history",
    "portfolio_history_revision",
)
INTERNAL = (
    "price_live",
    "price_eod",
    "symbol_refusal",
    "position_change",
    "position_loading",
    "job_run",
    "lease_fence",
    "market_override",
    "supabase_migrations.schema_migrations",
)


@pytest.fixture(autouse=True)
async def rows(store: Store) -> None:
    """One row of each table in `OWNED` for Alice and for Bob."""
    await store.put_positions([entry(1, "A", "1", user=ALICE), entry(2, "A", "1", user=BOB)])
    await store.claim_fence(FakeTerm())
    one, two = UUID(int=1), UUID(int=2)
    async with store.fenced(FakeTerm(), nothing_held([one, two])) as writes:
        await writes.quotes([Quote("A", Decimal(1), NOON, DAY, Decimal(1))])
        await writes.live(DAY, NOON)
        await writes.intraday(DAY, NOON, one, two)
        await writes.history("daily_eod", DAY, origin="captured", overwrite="none")
    others = parts(*(worth(portfolio_id, "5", "5", NOON) for portfolio_id in (one, two)))
    async with store.fenced_lanes(FakeTerm(), [others]) as (writes,):
        await writes.history("daily_eod", DAY, origin="captured", overwrite="all")


@asynccontextmanager
async def user(raw: Connection, role: str, user_id: UUID | None = None) -> AsyncIterator[None]:
    """Give the connection the role and the claims of a request through Supabase's API."""
    async with raw.transaction():
        claims = "{}" if user_id is None else f'{{"sub": "{user_id}", "role": "{role}"}}'
        await raw.execute("select set_config('request.jwt.claims', $1, true)", claims)
        await raw.execute(f"set local role {role}")
        yield


async def refused(raw: Connection, query: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with raw.transaction():
            await raw.execute(query)


@pytest.mark.parametrize("table", OWNED)
async def test_an_owner_reads_only_their_own_rows(raw: Connection, table: str) -> None:
    column = "id" if table == "portfolio" else "portfolio_id"
    for somebody, portfolios in ((ALICE, [1]), (BOB, [2]), (UUID(int=0xC), []), (None, [])):
        async with user(raw, "authenticated", somebody):
            found = await raw.fetch(f"select {column} as id from {table}")
        assert [row["id"] for row in found] == [UUID(int=n) for n in portfolios]


@pytest.mark.parametrize("table", OWNED)
async def test_a_user_cannot_write_even_their_own_rows(raw: Connection, table: str) -> None:
    column = "id" if table == "portfolio" else "portfolio_id"
    async with user(raw, "authenticated", ALICE):
        await refused(raw, f"update {table} set {column} = {column}")
        await refused(raw, f"delete from {table}")
        await refused(raw, f"insert into {table} default values")
        await refused(raw, f"truncate {table}")


@pytest.mark.parametrize("table", [*OWNED, *INTERNAL])
async def test_an_anonymous_user_reads_nothing(raw: Connection, table: str) -> None:
    async with user(raw, "anon"):
        await refused(raw, f"select * from {table}")


@pytest.mark.parametrize("table", INTERNAL)
async def test_no_user_reads_an_internal_table(raw: Connection, table: str) -> None:
    async with user(raw, "authenticated", ALICE):
        await refused(raw, f"select * from {table}")


async def test_the_policies_hold_for_a_direct_read_of_a_partition(raw: Connection) -> None:
    partitions = await raw.fetch("select tablename, rowsecurity from pg_tables where schemaname = 'partitions'")
    assert len(partitions) == 3
    assert all(row["rowsecurity"] for row in partitions)
    async with user(raw, "authenticated", ALICE):
        for row in partitions:
            await refused(raw, f"select * from partitions.{row['tablename']}")


async def test_every_table_has_row_level_security(raw: Connection) -> None:
    without = await raw.fetch("select tablename from pg_tables where schemaname = 'public' and not rowsecurity")
    assert without == []


async def test_no_user_can_create_or_drop_partitions(raw: Connection) -> None:
    async with user(raw, "authenticated", ALICE):
        await refused(raw, "select drop_intraday_partitions('2100-01-01')")
        await refused(raw, "select make_intraday_partition('2100-01-01')")


async def test_the_service_role_reads_and_writes_everything(raw: Connection) -> None:
    async with user(raw, "service_role"):
        for table in OWNED:
            assert await raw.fetchval(f"select count(*) from {table}") == 2
        await raw.execute("update portfolio_live set stale = true")
        await raw.execute("delete from portfolio where id = $1", UUID(int=1))
        for table in OWNED:
            assert await raw.fetchval(f"select count(*) from {table}") == 1
