"""One endpoint with TLS for several servers that form one store, like ElastiCache Serverless."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ops.local.servers import RedisServer
from sidecar.protocol import Kind, Outcome, Timings
from sidecar.redis.connection import Connector
from sidecar.redis.watch import WatchMode
from sidecar.settings import read
from tests.faults.replication import in_step, replicating
from tests.sidecar.conftest import client_of
from tests.sidecar.redis.test_tls_texts import Certificates
from tests.sidecar.redis.test_tls_texts import files as files
from tests.sidecar.redis.test_watch import KEYS, watching
from tests.support.serverless import Serverless
from tests.support.storing import storing
from tests.support.waiting import eventually

PATIENT = Timings(ttl=60.0, heartbeat=20.0, grant_ttl=5.0, call_limit=5.0)


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[list[RedisServer]]:
    """The server that has the keys, and its replica."""
    with ExitStack() as open_:
        owner = open_.enter_context(replicating(tmp_path / "owner"))
        replica = open_.enter_context(replicating(tmp_path / "replica", of=owner.port))
        await eventually(lambda: in_step(owner, replica))
        yield [owner, replica]


@pytest.fixture
async def endpoint(servers: list[RedisServer], files: Certificates) -> AsyncIterator[Serverless]:
    async with Serverless([server.port for server in servers], files.accepts()) as endpoint:
        yield endpoint


@pytest.fixture
def connector(endpoint: Serverless, files: Certificates) -> Connector:
    return connecting(endpoint, files)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    caplog.set_level(logging.INFO, "sidecar.redis.watch")
    yield caplog


def connecting(endpoint: Serverless, files: Certificates, **environment: str) -> Connector:
    settings = {
        "REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(endpoint.port), "REDIS_CLUSTER": "true", "REDIS_TLS": "true",
        "REDIS_TLS_CA_FILE": str(files.ca), "LEASES": "background_services", **environment,
    }  # fmt: skip
    asked = read(settings)
    return Connector(asked.redis, asked.kind, limit=PATIENT.call_limit)


async def test_the_guard_compares_the_server_of_the_keys_and_not_of_the_connection(
    connector: Connector, endpoint: Serverless, servers: list[RedisServer]
) -> None:
    """After a hand-over through a connection to another server, the next term begins at once."""
    with client_of(servers[0]) as redis:
        await eventually(lambda: redis.info("server")["uptime_in_seconds"] > 1)
    young = Timings(ttl=0.5, heartbeat=0.1, grant_ttl=0.1, call_limit=0.1)
    async with storing(connector, guard=True, timings=young) as store:
        for _ in range(4):
            await store.store.close()
            assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
            await store.store.close()
            assert await store.outcome(Kind.RELEASE) is Outcome.RELEASED
        assert store.store.guard == "on"
    assert set(endpoint.given) == set(endpoint.servers), "the connections go to both servers"


async def test_the_watch_receives_notices_through_any_server_and_logs_its_mode_once(
    connector: Connector, endpoint: Serverless, warnings: pytest.LogCaptureFixture
) -> None:
    async with storing(connector, timings=PATIENT) as store, watching(connector.companion) as watch:
        for _ in range(4):
            assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
            await eventually(lambda: watch.watch.mode is WatchMode.NOTICES and set(KEYS) <= set(watch.changes))
            assert "unknown command" in str(watch.watch.refusal)
            watch.changes.clear()
            assert await store.outcome(Kind.RELEASE) is Outcome.RELEASED
            await eventually(lambda: "tracker" in watch.changes)
            watch.changes.clear()
            await endpoint.cut()
            await eventually(lambda: set(KEYS) <= set(watch.changes))  # the watch has reconnected
            watch.changes.clear()
            # The watch was set up again to try the stronger mode.
            await eventually(lambda: set(KEYS) <= set(watch.changes))
    messages = [record.getMessage() for record in warnings.records if record.levelno >= logging.WARNING]
    assert len(messages) == 1, messages


async def test_without_redis_cluster_a_watch_at_another_server_is_off(
    endpoint: Serverless, files: Certificates
) -> None:
    connector = connecting(endpoint, files, REDIS_CLUSTER="false")
    async with storing(connector, timings=PATIENT) as store:
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
        async with watching(connector.companion) as watch:
            await eventually(lambda: watch.watch.refusal)
            assert endpoint.given[-2] != endpoint.given[-1]
            assert watch.watch.mode is WatchMode.OFF
            assert "REDIS_CLUSTER=true" in str(watch.watch.refusal)


async def test_a_clock_of_the_endpoint_that_is_behind_costs_one_retry(
    connector: Connector, endpoint: Serverless
) -> None:
    endpoint.clock_ahead = -60
    async with storing(connector, timings=PATIENT) as store:
        assert await store.outcome(Kind.ACQUIRE) is Outcome.LATE
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED


async def test_min_replicas_is_refused_with_the_reason(connector: Connector) -> None:
    async with storing(connector, min_replicas=1, timings=PATIENT) as store:
        failure = await store.failure(Kind.ACQUIRE)
    assert failure.kind == "response"
    assert "MIN_REPLICAS above 0 needs WAIT" in failure.text
