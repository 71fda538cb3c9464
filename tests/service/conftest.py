"""Migrated databases (empty or with the sample portfolios), sidecars with the test's own keys, and services."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import aiohttp
import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from ops.local.servers import PostgresServer, RedisServer
from runtime.addresses import Address
from runtime.listener import Listener
from service.api.listener import connection_limits
from service.commands.samples import load_samples
from service.database.migrations import migrate
from service.database.store import Store
from service.work.metrics import WorkMetrics
from tests.support.processes import Service, Sidecar
from tests.support.served_api import Served


@pytest.fixture(scope="session")
def samples_template(postgres: PostgresServer) -> str:
    """The name of a migrated database with the samples, for tests to copy. A copy is quicker than the migrations."""
    name = "service_samples"

    async def make() -> None:
        admin = await asyncpg.connect(postgres.url)
        await admin.execute(f"create database {name}")
        await admin.close()
        url = postgres.url.rsplit("/", 1)[0] + f"/{name}"
        await migrate(url)
        async with await Store.connect(url, connections=1) as store:
            await load_samples(store)

    asyncio.run(make())
    return name


@asynccontextmanager
async def copy_of(template: str, postgres: PostgresServer) -> AsyncIterator[str]:
    """The address of a copy of a database. The copy is dropped at the end."""
    name = f"service_{uuid4().hex}"
    admin = await asyncpg.connect(postgres.url)
    # file_copy copies a small database in a third of the processor time of the default strategy, wal_log.
    await admin.execute(f"create database {name} template {template} strategy file_copy")
    yield postgres.url.rsplit("/", 1)[0] + f"/{name}"
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


@pytest.fixture
async def samples_url(postgres: PostgresServer, samples_template: str) -> AsyncIterator[str]:
    """The address of a database with the samples, for one test."""
    async with copy_of(samples_template, postgres) as url:
        yield url


@pytest.fixture(scope="module")
def shared_url(postgres: PostgresServer, samples_template: str) -> Iterator[str]:
    """The address of a database with the samples, for all tests of a module."""
    with asyncio.Runner() as runner:
        copy = copy_of(samples_template, postgres)
        yield runner.run(copy.__aenter__())
        runner.run(copy.__aexit__(None, None, None))


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def new_sidecar(redis_server: RedisServer, tmp_path: Path) -> Callable[..., Sidecar]:
    """A function that makes sidecars, which compete for this test's own keys."""
    key = f"{uuid4().hex}:{{name}}"

    def make(name: str, **settings: str) -> Sidecar:
        return Sidecar(tmp_path / f"sidecar-{name}.log", redis_server.url, name, LEASE_KEY=key, **settings)

    return make


@pytest.fixture
def new_service(samples_url: str, session: aiohttp.ClientSession, tmp_path: Path) -> Callable[..., Service]:
    """A function that makes services on the database with the samples."""

    def make(name: str, sidecar_url: str, **settings: str) -> Service:
        settings = {"DATABASE_URL": samples_url, "SIDECAR_URL": sidecar_url, **settings}
        return Service(tmp_path / f"service-{name}.log", session, **settings)

    return make


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    """Restore the logging after a test that sets up the service's logging in the process of the tests."""
    root = logging.getLogger()
    quiet, filtered = logging.getLogger("asyncpg"), logging.getLogger("aiohttp.server")
    before = root.handlers[:], root.level, quiet.level, filtered.filters[:]
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level, quiet.level, filtered.filters[:] = before


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """A stack of context managers, which exit at the end of the test, last first."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def served(shared_url: str, session: aiohttp.ClientSession) -> AsyncIterator[Served]:
    """An API in this process, without background work and without any values yet."""
    admin = await asyncpg.connect(shared_url)
    await admin.execute("truncate portfolio_live, portfolio_history, lease_fence, position_loading, job_run")
    await admin.close()
    async with await Store.connect(shared_url, connections=2) as store:
        served = Served(store, session)
        probing = asyncio.create_task(served.access.run())
        await served.access.connected()
        async with served.listening(Listener, address=Address("127.0.0.1", 0), limits=connection_limits()):
            yield served
        probing.cancel()
        await asyncio.wait((probing,))


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
"""SQL that restores the newly migrated state. A test may add a function `meddle`, or rename `job_run` to `away`."""


@pytest.fixture(scope="session")
def migrated_once(postgres: PostgresServer) -> str:
    """The address of a database that is migrated once per session: migrations take ten times as long as most tests."""
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
    """The address of a migrated database that is cleaned after the test."""
    yield migrated_once
    cleaner = await asyncpg.connect(migrated_once)
    await cleaner.execute(CLEAN)
    await cleaner.close()


@pytest.fixture
async def store(migrated: str) -> AsyncIterator[Store]:
    # A test may leave a transaction of this store idle while it checks the database on another connection.
    async with await Store.connect(migrated, idle_limit=20.0) as store:
        yield store


@pytest.fixture
async def raw(migrated: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection for the test, to check the database and to interfere."""
    connection = await asyncpg.connect(migrated)
    yield connection
    await connection.close()


@pytest.fixture
def metrics() -> WorkMetrics:
    return WorkMetrics(CollectorRegistry())
