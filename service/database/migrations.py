"""Applies the missing migrations of `supabase/migrations` to a database.

The applied migrations are recorded in the Supabase CLI's own table, so `supabase db push` and this module agree on what
is missing.
"""

import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import asyncpg

from runtime.escape import one_line
from service.database.connection import END_IF_IDLE, Connection, connect, store_errors, transaction

logger = logging.getLogger(__name__)

FOLDERS = Path(__file__).parents[2] / "supabase" / "migrations", Path(__file__).with_name("supabase_migrations")
"""Folders of the migrations: in a checkout or an image, and in an installed wheel."""
FOLDER = FOLDERS[0] if FOLDERS[0].is_dir() else FOLDERS[1]
FILE_NAME = re.compile(r"(\d{14})_(\w+)\.sql")
LOCK = 0x6D696772  # 'migr': the advisory lock of a process that migrates
LOCK_LIMIT = 300
"""Seconds that a process waits for the advisory lock; longer than the time until the server ends the transaction of a
process that is stopped."""
LOCK_HOLDER = """
select pid, state, state_change from pg_catalog.pg_locks join pg_catalog.pg_stat_activity using (pid)
where locktype = 'advisory' and granted and classid = 0 and objid = $1 and objsubid = 1
    and database = (select oid from pg_catalog.pg_database where datname = current_database())
"""

LEDGER = """
create schema if not exists supabase_migrations;
create table if not exists supabase_migrations.schema_migrations (version text not null primary key);
alter table supabase_migrations.schema_migrations add column if not exists statements text[];
alter table supabase_migrations.schema_migrations add column if not exists name text;
"""

MISSING_RIGHT = "; migrate needs CREATEROLE, and CREATE on the database and on its schema public (docs/database.md)"

VERSIONS = "select version from supabase_migrations.schema_migrations"


class MigrationError(Exception):
    """A migration cannot be applied; the text is one line that names the file or the folder."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of the folder."""

    version: str
    name: str
    path: Path

    @classmethod
    def read(cls, path: Path) -> "Migration":
        """Parse the version and the name from the file's name."""
        match = FILE_NAME.fullmatch(path.name)
        if match is None:
            raise MigrationError(f"{path.name}: the name of a migration is YYYYMMDDHHmmss_name.sql")
        return cls(match[1], match[2], path)


async def migrate(dsn: str, folder: Path = FOLDER) -> list[str]:
    """Apply the missing migrations, each in its own transaction; returns the names of the files applied.

    Several processes may migrate at the same time: one applies the migrations while the others wait.

    Raises:
        MigrationError: the folder has no migrations, or two of one version; a file is misnamed, fails, or is older than
            an applied one (`supabase db push` refuses such a file too); or another process has held the lock for
            `LOCK_LIMIT` seconds.
        StoreError: the database does not answer.
    """
    migrations = _migrations_in(folder)
    connection = await connect(dsn)
    with store_errors():
        try:
            if not await _missing(connection, migrations):
                return []
            async with _locked(connection):
                await connection.execute(LEDGER)
            return [migration.path.name for migration in migrations if await _apply(connection, migration)]
        finally:
            await connection.close(timeout=5)


def _migrations_in(folder: Path) -> list[Migration]:
    migrations = [Migration.read(path) for path in sorted(folder.glob("*.sql"))]
    if not migrations:
        raise MigrationError(f"{folder}: contains no migrations")
    for one, other in pairwise(migrations):
        if one.version == other.version:
            raise MigrationError(f"{other.path.name}: has the same version as {one.path.name}")
    return migrations


async def _missing(connection: Connection, migrations: list[Migration]) -> bool:
    """Whether a migration is missing. Takes no lock and writes nothing."""
    if await connection.fetchval("select to_regclass('supabase_migrations.schema_migrations')") is None:
        return True
    applied = {row["version"] for row in await connection.fetch(VERSIONS)}
    return any(migration.version not in applied for migration in migrations)


async def _apply(connection: Connection, migration: Migration) -> bool:
    """Apply one migration if it is missing; returns whether it was missing."""
    text = migration.path.read_text(encoding="utf-8")
    async with _locked(connection):
        applied = [row["version"] for row in await connection.fetch(VERSIONS)]
        if migration.version in applied:
            return False
        if applied and migration.version < max(applied):
            raise MigrationError(f"{migration.path.name}: is older than {max(applied)}, which is applied already")
        with _sql_errors(migration, text):
            await connection.execute("set local lock_timeout = '10s'")  # a long wait for a lock blocks other sessions
            # The first migrations name tables without a schema, and a role's search_path may be empty.
            await connection.execute("set local search_path = public")
            await connection.execute(text)
        await connection.execute(
            "insert into supabase_migrations.schema_migrations (version, name, statements) values ($1, $2, $3)",
            migration.version,
            migration.name,
            [text],
        )
    logger.info("applied migration %s", migration.path.name)
    return True


@asynccontextmanager
async def _locked(connection: Connection) -> AsyncIterator[None]:
    """A transaction that holds the advisory lock until its end."""
    async with transaction(connection):
        # Rewriting a large table takes longer than the statement limit of a database's provider.
        limits = f"set local statement_timeout = 0; set local lock_timeout = '{LOCK_LIMIT}s'"
        await connection.execute(f"{END_IF_IDLE}; {limits}")
        try:
            async with transaction(connection):  # a savepoint, so that the next query can run after an error
                await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
        except asyncpg.LockNotAvailableError as error:
            raise MigrationError(await _lock_holder(connection)) from error
        yield


async def _lock_holder(connection: Connection) -> str:
    holder = await connection.fetchrow(LOCK_HOLDER, LOCK)
    text = f"another migrate has held the lock for {LOCK_LIMIT} s"
    if holder is None:
        return text
    if holder["state"] is None:  # the session of another role
        return f"{text} (pid {holder['pid']})"
    return f"{text} (pid {holder['pid']}, {holder['state']} since {holder['state_change'].isoformat(' ', 'seconds')})"


@contextmanager
def _sql_errors(migration: Migration, text: str) -> Iterator[None]:
    try:
        yield
    except asyncpg.PostgresError as error:
        position = getattr(error, "position", None)
        line = f":{text[: int(position)].count(chr(10)) + 1}" if position else ""
        remedy = MISSING_RIGHT if isinstance(error, asyncpg.InsufficientPrivilegeError) else ""
        raise MigrationError(f"{migration.path.name}{line}: {one_line(error.args[0], 300)}{remedy}") from error
