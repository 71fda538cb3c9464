"""Migrations on a real Postgres."""

import asyncio
import re
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from service.database import migrations as migrating
from service.database.connection import END_IF_IDLE, StoreError
from service.database.migrations import FOLDER, LOCK, MigrationError, migrate
from tests.support.positions import somebody_waits_for_a_lock
from tests.support.proxy import Proxy

ALL = sorted(path.name for path in FOLDER.glob("*.sql"))

COLUMNS = """
select table_name, column_name, col_description(format('%I.%I', table_schema, table_name)::regclass, ordinal_position)
from information_schema.columns where table_schema = 'public'
"""


async def ledger(dsn: str) -> list[tuple[str, str]]:
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch("select version, name from supabase_migrations.schema_migrations order by version")
    await connection.close()
    return [(row["version"], row["name"]) for row in rows]


async def test_a_second_migration_changes_nothing(database_url: str) -> None:
    assert await migrate(database_url) == ALL
    assert await migrate(database_url) == []


async def test_applied_files_are_recorded_where_the_supabase_cli_looks(database_url: str) -> None:
    await migrate(database_url)
    assert await ledger(database_url) == [(name[:14], name[15:-4]) for name in ALL]


async def test_each_stored_comment_has_plain_sentences_and_names_columns_of_its_table(database_url: str) -> None:
    await migrate(database_url)
    connection = await asyncpg.connect(database_url)
    rows = [tuple(row) for row in await connection.fetch(COLUMNS)]
    await connection.close()
    comments = [(table, column, comment) for table, column, comment in rows if comment is not None]
    assert comments
    columns = {(table, column) for table, column, _ in rows}
    for table, column, comment in comments:
        assert re.fullmatch(r"[A-Z][^.:;]*\.(?: [A-Z][^.:;]*\.)*", comment), f"{table}.{column}: {comment}"
        assert {(table, word) for word in re.findall(r"[a-z]+(?:_[a-z]+)+", comment)} <= columns


async def test_simultaneous_migrations_apply_each_file_once(database_url: str) -> None:
    applied = await asyncio.gather(*(migrate(database_url) for _ in range(4)))
    assert sorted(name for names in applied for name in names) == ALL


async def test_a_file_that_the_supabase_cli_applied_is_not_applied_again(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "20260101000000_one.sql").write_text("create table one (id int);")
    await migrate(database_url, tmp_path)
    (tmp_path / "20260102000000_two.sql").write_text("create table one (id int); -- would fail")
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "insert into supabase_migrations.schema_migrations (version, name) values ('20260102000000', 'two')"
    )
    await connection.close()
    assert await migrate(database_url, tmp_path) == []


async def test_a_failed_file_is_rolled_back_and_the_error_names_its_line(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "20260101000000_one.sql").write_text("create table one (id int);")
    (tmp_path / "20260102000000_two.sql").write_text("create table two (id int);\n\ncreate table three (id nonsense);")
    with pytest.raises(MigrationError, match=r'20260102000000_two.sql:3: type "nonsense" does not exist'):
        await migrate(database_url, tmp_path)
    assert await ledger(database_url) == [("20260101000000", "one")]
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("select to_regclass('two')") is None
    await connection.close()


async def test_a_file_older_than_an_applied_file_is_refused(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "20260102000000_two.sql").write_text("create table two (id int);")
    await migrate(database_url, tmp_path)
    (tmp_path / "20260101000000_one.sql").write_text("create table one (id int);")
    with pytest.raises(MigrationError, match=r"20260101000000_one.sql: is older than 20260102000000"):
        await migrate(database_url, tmp_path)


@pytest.mark.parametrize("name", ["one.sql", "2026_one.sql", "20260101000000.sql"])
async def test_a_misnamed_file_is_refused(database_url: str, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("select 1;")
    with pytest.raises(MigrationError, match=r"YYYYMMDDHHmmss_name.sql"):
        await migrate(database_url, tmp_path)


async def test_a_role_without_superuser_migrates_a_database_like_supabases(database_url: str) -> None:
    """On Supabase the roles and auth.uid() have other owners, and everybody gets rights on new tables."""
    admin = await asyncpg.connect(database_url)
    for role, more in (("anon", ""), ("authenticated", ""), ("service_role", "bypassrls")):
        if not await admin.fetchval("select exists (select from pg_roles where rolname = $1)", role):
            await admin.execute(f"create role {role} nologin noinherit {more}")
    await admin.execute(f"""
        create role the_owner login createrole;
        grant create on database "{database_url.rsplit("/", 1)[1]}" to the_owner;
        grant create on schema public to the_owner;
        create schema auth;
        create function auth.uid() returns uuid language sql as $$ select null::uuid $$;
        grant usage on schema auth to the_owner, anon, authenticated;
        alter default privileges for role the_owner in schema public
            grant all on tables to anon, authenticated, service_role;
    """)
    try:
        assert await migrate(database_url.replace("postgres@", "the_owner@")) == ALL
        granted = await admin.fetch("""
            select grantee, privilege_type from information_schema.role_table_grants
            where table_schema = 'public' and grantee in ('anon', 'authenticated')
        """)
        assert {(row["grantee"], row["privilege_type"]) for row in granted} == {("authenticated", "SELECT")}
    finally:
        await admin.execute("drop owned by the_owner cascade")
        await admin.execute("drop role the_owner")
        await admin.close()


async def test_a_migrate_that_is_cut_off_keeps_its_locks_only_for_a_limited_time(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "20260101000000_one.sql").write_text("create table one (id int); create table two (id int);")
    await migrate(database_url, tmp_path)
    (tmp_path / "20260102000000_two.sql").write_text("alter table one add a int; alter table two add a int;")
    monkeypatch.setattr(migrating, "END_IF_IDLE", END_IF_IDLE.replace("60s", "1s"))
    port = urlsplit(database_url).port
    assert port is not None
    admin = await asyncpg.connect(database_url)
    async with Proxy(port) as proxy, asyncio.timeout(30):
        behind_proxy = database_url.replace(f":{port}/", f":{proxy.port}/")
        async with admin.transaction():
            await admin.execute("lock table two in share mode")
            cut_off = asyncio.create_task(migrate(behind_proxy, tmp_path))
            await somebody_waits_for_a_lock(admin)
            proxy.black_hole()
        assert await migrate(database_url, tmp_path) == ["20260102000000_two.sql"]
        await proxy.cut()
        with pytest.raises((MigrationError, StoreError)):
            await cut_off
    await admin.close()


async def test_a_migrate_that_waits_too_long_for_another_names_the_other_s_session(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrating, "LOCK_LIMIT", 1)
    other = await asyncpg.connect(database_url)
    async with other.transaction():
        await other.execute("select pg_advisory_xact_lock($1)", LOCK)
        with pytest.raises(MigrationError) as refused:
            await migrate(database_url)
    assert re.fullmatch(
        rf"another migrate has held the lock for 1 s \(pid {other.get_server_pid()}, idle in transaction since "
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00:00\)",
        str(refused.value),
    )
    await other.close()


async def test_a_role_that_may_not_create_roles_gets_the_names_of_the_rights(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "20260101000000_one.sql").write_text("create role another nologin;")
    admin = await asyncpg.connect(database_url)
    await admin.execute(f"""
        create role plain_owner login;
        grant create on database "{database_url.rsplit("/", 1)[1]}" to plain_owner;
    """)
    try:
        with pytest.raises(MigrationError, match=r"permission denied to create role; migrate needs CREATEROLE"):
            await migrate(database_url.replace("postgres@", "plain_owner@"), tmp_path)
    finally:
        await admin.execute("drop owned by plain_owner cascade")
        await admin.execute("drop role plain_owner")
        await admin.close()
