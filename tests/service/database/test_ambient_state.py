"""No SQL depends on a session's settings: every name is qualified, and every function sets its search_path."""

import ast
import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from service.database import sql
from service.database.migrations import migrate
from service.database.sql import statement
from service.database.store import Store
from tests.support.positions import LONG_AGO, entry, held, somebody_waits_for_a_lock

SERVICE = Path(sql.__file__).parents[2]
FILES = sorted(path.stem for path in Path(sql.__file__).parent.glob("*.sql"))
CONTINUATIONS = {"replace_intraday": "write_intraday"}
"""Files that complete the statement of another file."""
STAGES = ("stage_table", "import_table_positions", "import_table_prices")


def inline_statements() -> Iterator[str]:
    """The statements in the service's Python code."""
    for path in SERVICE.glob("**/*.py"):
        tree = ast.parse(path.read_text())
        pieces = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if id(node) not in pieces and isinstance(node, ast.Constant) and isinstance(node.value, str):
                first = node.value.split(maxsplit=1)[:1]
                if first in (["select"], ["insert"], ["update"], ["delete"]) and " from " in f" {node.value} ":
                    yield node.value


@pytest.fixture
async def without_path(raw: "asyncpg.Connection[asyncpg.Record]") -> "asyncpg.Connection[asyncpg.Record]":
    """A session with an empty search_path."""
    await raw.execute("set search_path = ''")
    return raw


@pytest.mark.parametrize("name", [name for name in FILES if name not in STAGES])
async def test_every_statement_finds_its_tables_without_a_search_path(
    name: str, without_path: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    stage = "import_table_prices" if "price" in name or "split" in name else "import_table_positions"
    for table in ("stage_table", stage):
        await without_path.execute(statement(table).replace("on commit drop", ""))
    before = statement(CONTINUATIONS[name]) if name in CONTINUATIONS else ""
    await without_path.prepare(before + statement(name))


async def test_every_statement_in_the_code_finds_its_tables_without_a_search_path(
    without_path: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    statements = list(inline_statements())
    assert len(statements) > 5
    for text in statements:
        if "partitions(" not in text:
            await without_path.prepare(text)


async def test_every_function_fixes_its_search_path(raw: "asyncpg.Connection[asyncpg.Record]") -> None:
    functions = await raw.fetch(
        """
        select proname, proconfig from pg_proc
        where pronamespace in ('public'::regnamespace, 'auth'::regnamespace)
            and not exists (select from pg_depend where objid = pg_proc.oid and deptype = 'e')
        """
    )
    assert len(functions) >= 10
    fixed = {'search_path=""', "search_path=pg_catalog, pg_temp"}
    assert {row["proname"] for row in functions if fixed.isdisjoint(row["proconfig"] or [])} == set()


async def test_a_portfolio_is_deleted_without_a_search_path(
    store: Store, without_path: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await store.put_positions([entry(1, "A", "1")])
    for function in ("make_intraday_partition", "make_history_partition"):
        await without_path.execute(f"select public.{function}($1)", LONG_AGO)
    await without_path.execute("delete from public.portfolio")
    assert await without_path.fetchval("select count(*) from public.position_change") > 0


async def test_migrations_apply_with_any_defaults_of_the_database(database_url: str) -> None:
    name = database_url.rpartition("/")[2]
    admin = await asyncpg.connect(database_url)
    try:
        for setting in (
            "search_path = ''",
            "datestyle = 'SQL, DMY'",
            "timezone = 'Pacific/Kiritimati'",
            "default_transaction_isolation = 'serializable'",
            "standard_conforming_strings = off",
            "check_function_bodies = on",
        ):
            await admin.execute(f'alter database "{name}" set {setting}')
    finally:
        await admin.close()
    assert await migrate(database_url)
    assert await migrate(database_url) == []


@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
async def test_the_second_of_two_writers_succeeds_at_every_default_isolation(level: str, database_url: str) -> None:
    """The store sets its own isolation level.

    A stricter level would refuse the second writer, because that writer read before the first writer committed.
    """
    await migrate(database_url)
    name = database_url.rpartition("/")[2]
    raw = await asyncpg.connect(database_url)
    try:
        await raw.execute(f"alter database \"{name}\" set default_transaction_isolation = '{level}'")
        async with await Store.connect(database_url) as store:
            await store.put_positions([entry(1, "A", "1")])
            holding = raw.transaction(isolation="read_committed")
            async with asyncio.timeout(30), asyncio.TaskGroup() as tasks, holding:
                await raw.execute("update public.position set quantity = 2")
                tasks.create_task(store.put_positions([entry(1, "A", "3")]))
                await somebody_waits_for_a_lock(raw)
            assert await held(store, LONG_AGO) == {UUID(int=1): (("A", Decimal(3)),)}
    finally:
        await raw.close()
