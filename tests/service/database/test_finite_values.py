"""No column holds a value that a reader does not support: infinity, NaN, a year before 1 or after 9999."""

from datetime import date
from pathlib import Path

import asyncpg
import pytest

from service.database.migrations import FOLDER, migrate
from service.database.store import Store
from service.market.calendar import CALENDARS
from service.market.overrides import OverriddenCalendar

ID = "00000000-0000-4000-8000-000000000001"
DAY, NOON = "2026-03-02", "2026-03-02 17:00Z"
VALUES = {"value": "1", "priced_fraction": "1", "stale": "f", "token": "1"}
ROWS: dict[str, dict[str, str]] = {
    "portfolio": {"id": ID, "user_id": ID, "name": "x", "created_at": NOON},
    "position": {"portfolio_id": ID, "symbol": "A", "valid_from": DAY, "quantity": "1"},
    "portfolio_live": {
        "portfolio_id": ID,
        "session_date": DAY,
        "as_of": NOON,
        "day_open": "1",
        "day_high": "1",
        "day_low": "1",
        "oldest_price_at": NOON,
        **VALUES,
    },
    "portfolio_intraday": {"portfolio_id": ID, "session_date": DAY, "slot": NOON, **VALUES},
    "portfolio_history": {
        "portfolio_id": ID,
        "date": DAY,
        "kind": "daily_eod",
        "origin": "captured",
        "written_at": NOON,
        **VALUES,
    },
    "portfolio_history_revision": {
        "portfolio_id": ID,
        "date": DAY,
        "kind": "daily_eod",
        "revision": "1",
        "origin": "captured",
        "written_at": NOON,
        **VALUES,
    },
    "price_live": {"symbol": "A", "price": "1", "at": NOON, "session_date": DAY, "open": "1", "token": "1"},
    "price_eod": {"symbol": "A", "session_date": DAY, "close": "1", "at": NOON},
    "symbol_refusal": {"symbol": "A", "refusals": "1", "refused_at": NOON, "retry_at": NOON, "token": "1"},
    "lease_fence": {"lease": "x", "token": "1", "holder": "x", "taken_at": NOON},
    "position_loading": {"lease": "x", "token": "1", "portfolios_done": "0", "portfolios": "0", "written_at": NOON},
    "job_run": {
        "job": "eod",
        "session_date": DAY,
        "status": "done",
        "holder": "x",
        "token": "1",
        "cursor_date": DAY,
        "started_at": NOON,
        "updated_at": NOON,
        "finished_at": NOON,
        "skipped": f"{{{DAY}}}",
    },
    "market_override": {
        "calendar": "NYSE",
        "session_date": DAY,
        "opens_at": "2026-03-02 15:00Z",
        "closes_at": NOON,
        "reason": "x",
    },
    "position_change": {"xid": "1", "portfolio_id": ID},
}
"""A valid row of each table."""
BAD_DAYS = ("infinity", "-infinity", "0044-03-15 BC", "10000-01-01")
BAD = {
    "date": BAD_DAYS,
    "timestamptz": BAD_DAYS,
    "_date": tuple(f'{{"{day}"}}' for day in BAD_DAYS),
    "numeric": ("NaN", "Infinity", "-Infinity"),
    "float8": ("NaN", "Infinity", "-Infinity"),
    "timestamp": BAD_DAYS,
}
WRITTEN_BY_HAND = "market_override"
"""The table of market overrides, which people write by hand. Its reader bounds each value and reports bad ones."""


async def columns(raw: "asyncpg.Connection[asyncpg.Record]") -> dict[tuple[str, str], str]:
    """The type of each column that could hold an unsupported value, except generated columns."""
    rows = await raw.fetch(
        """
        select relname, attname, typname
        from pg_attribute join pg_class on pg_class.oid = attrelid join pg_type on pg_type.oid = atttypid
        where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relispartition
            and attnum > 0 and not attisdropped and attgenerated = '' and typname = any($1)
        """,
        list(BAD),
    )
    return {(row["relname"], row["attname"]): row["typname"] for row in rows}


async def insert(raw: "asyncpg.Connection[asyncpg.Record]", table: str, row: dict[str, str]) -> None:
    values = ", ".join("'" + value.replace("'", "''") + "'" for value in row.values())
    await raw.execute(f"insert into public.{table} ({', '.join(row)}) values ({values})")


@pytest.fixture
async def partitioned(raw: "asyncpg.Connection[asyncpg.Record]") -> "asyncpg.Connection[asyncpg.Record]":
    """A database with the rows that other rows refer to, and with partitions."""
    await insert(raw, "portfolio", ROWS["portfolio"])
    await insert(raw, "lease_fence", ROWS["lease_fence"])
    for name in ("intraday", "history"):
        await raw.execute(f"select public.make_{name}_partition('{DAY}')")
    for parent in ("portfolio_intraday", "portfolio_history", "portfolio_history_revision"):
        # Only a default partition accepts a wrong date, because the date matches no other partition. Somebody may
        # create a default partition by hand.
        await raw.execute(f"create table partitions.{parent}_default partition of public.{parent} default")
    return raw


async def test_the_sample_rows_have_every_column_to_check(raw: "asyncpg.Connection[asyncpg.Record]") -> None:
    assert {(table, column) for table, column in await columns(raw) if column not in ROWS.get(table, {})} == set()


async def test_no_column_accepts_infinity_nan_or_an_unreadable_year(
    partitioned: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    taken = []
    for (table, column), kind in (await columns(partitioned)).items():
        for bad in BAD[kind]:
            transaction = partitioned.transaction()
            await transaction.start()
            try:
                if table in ("portfolio", "lease_fence"):
                    await partitioned.execute(f"delete from public.{table}")
                await insert(partitioned, table, ROWS[table] | {column: bad})
                if table != WRITTEN_BY_HAND:
                    taken.append((table, column, bad))
            except (asyncpg.CheckViolationError, asyncpg.NumericValueOutOfRangeError, asyncpg.FeatureNotSupportedError):
                pass
            finally:
                await transaction.rollback()
    assert taken == []


async def test_each_sample_row_is_valid(partitioned: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Otherwise the rows of the test above would be refused for another reason."""
    for table, row in ROWS.items():
        if table not in ("portfolio", "lease_fence"):
            await insert(partitioned, table, row)


@pytest.mark.parametrize("column", ["session_date", "opens_at", "closes_at"])
@pytest.mark.parametrize("bad", BAD_DAYS)
async def test_any_override_written_by_hand_can_be_read(
    column: str, bad: str, store: Store, raw: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    late = {"closes_at": "infinity"} if column == "opens_at" and bad != "infinity" else {}
    try:
        await insert(raw, "market_override", ROWS["market_override"] | late | {column: bad})
    except asyncpg.CheckViolationError:
        return  # the session closes before it opens
    overrides = await store.market_overrides("NYSE")
    assert len(overrides) == 1
    calendar = OverriddenCalendar(CALENDARS["NYSE"]())
    calendar.override(overrides)
    assert calendar.session(date(2026, 3, 9)) is not None


async def test_a_migration_corrects_invalid_values_and_the_rows_can_be_written(
    database_url: str, tmp_path: Path
) -> None:
    before = tmp_path / "before"
    before.mkdir()
    for path in FOLDER.glob("*.sql"):
        if path.name < "20261128120100":
            (before / path.name).write_text(path.read_text())
    await migrate(database_url, before)
    connection = await asyncpg.connect(database_url)
    try:
        for table, changed in (
            ("portfolio", {}),
            ("price_live", {"at": "infinity"}),
            ("price_eod", {"at": "-infinity"}),
            ("price_eod", {"session_date": "infinity", "symbol": "B"}),
            ("position", {"valid_from": "-infinity"}),
            ("position", {"valid_from": "0044-03-15 BC", "quantity": "2"}),
            ("position", {"valid_from": "infinity"}),
            ("position", {"valid_from": "9999-12-31", "quantity": "3"}),
        ):
            await insert(connection, table, ROWS[table] | changed)
        await migrate(database_url)
        assert await connection.fetchval("select count(*) from price_live") == 0
        closes = await connection.fetch("select symbol, at from price_eod")
        assert [(row["symbol"], row["at"].isoformat()) for row in closes] == [("A", "2026-03-02T21:00:00+00:00")]
        held = await connection.fetch("select valid_from, quantity from position order by valid_from")
        assert [(str(day), int(quantity)) for day, quantity in held] == [("0001-01-02", 2), ("9999-12-30", 3)]
        await connection.execute("update position set quantity = 2; update price_eod set close = 3")
    finally:
        await connection.close()
