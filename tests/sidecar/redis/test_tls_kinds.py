"""TLS and a password file work with every kind of Redis: the nodes of a cluster, sentinels and their primary."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from ops.local.servers import RedisServer
from sidecar.protocol import Kind, Outcome, Timings
from sidecar.redis.connection import Connector
from sidecar.redis.failures import Failure
from sidecar.settings import read
from tests.sidecar.conftest import client_of, command
from tests.sidecar.redis.test_tls_texts import Certificates
from tests.sidecar.redis.test_tls_texts import files as files
from tests.support.proxy import Proxy
from tests.support.redis_cluster import BUS, RedisCluster, cluster_port, send_command
from tests.support.redis_sentinels import MASTER, SentinelServer
from tests.support.storing import KEY, storing
from tests.support.tls import Authority

PATIENT = Timings(ttl=120.0, heartbeat=40.0, grant_ttl=30.0, call_limit=8.0)
OLD, NEW = "first-correct-horse", "second-battery-staple"


def settings(files: Certificates, **environment: str) -> dict[str, str]:
    return {
        "REDIS_TLS": "true", "REDIS_TLS_CA_FILE": str(files.ca), "LEASES": "background_services", "LEASE_TTL": "120",
        "REDIS_USERNAME": "sidecar", "REDIS_PASSWORD_FILE": str(files.folder / "password"), **environment,
    }  # fmt: skip


def connector(environment: dict[str, str]) -> Connector:
    asked = read(environment)
    return Connector(asked.redis, asked.kind, limit=PATIENT.call_limit)


def set_password(server: RedisServer, folder: Path, password: str) -> None:
    """Give the user this password, and write it into the file."""
    with client_of(server) as redis:
        command(redis, "ACL", "SETUSER", "sidecar", "on", "resetpass", f">{password}", "~*", "&*", "+@all")
    (folder / "password").write_text(password)


async def test_cluster_nodes_are_followed_over_tls_with_the_new_password(files: Certificates, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        fronts, nodes = [], []
        for number in range(2):
            port = cluster_port()
            front = await stack.enter_async_context(Proxy(port, files.accepts()))
            announced = ("--cluster-announce-port", str(front.port), "--cluster-announce-bus-port", str(port + BUS))
            arguments = ("--cluster-enabled", "yes", *announced)
            node = RedisServer(tmp_path / f"node{number}", port=port, arguments=arguments)
            nodes.append(stack.enter_context(node))
            fronts.append(front)
            set_password(node, tmp_path, OLD)
        cluster = RedisCluster(nodes, masters=2)
        await cluster.form()
        owner = [node for node in cluster.nodes if not isinstance(send_command(node, "GET", KEY), Exception)]
        [other] = [node for node in cluster.nodes if node not in owner]
        seed = fronts[cluster.nodes.index(other)]

        cluster_settings = {"REDIS_CLUSTER": "true", "REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(seed.port)}
        async with storing(connector(settings(files, **cluster_settings)), timings=PATIENT) as store:
            assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
            for node in cluster.nodes:
                set_password(node, tmp_path, NEW)
            await store.store.close()
            assert await store.outcome(Kind.RENEW) is Outcome.RENEWED
        assert all(front.accepted for front in fronts)


@pytest.fixture
def primary(redis_of_its_own: RedisServer, tmp_path: Path) -> RedisServer:
    set_password(redis_of_its_own, tmp_path, OLD)
    return redis_of_its_own


async def test_sentinels_and_their_primary_are_reached_over_tls(
    primary: RedisServer, files: Certificates, tmp_path: Path
) -> None:
    async with Proxy(primary.port, files.accepts()) as way:
        with SentinelServer(tmp_path / "sentinel", way.port, quorum=2, down_after=1000) as sentinel:
            async with Proxy(sentinel.port, files.accepts()) as front:
                named = {"REDIS_SENTINELS": f"127.0.0.1:{front.port}", "REDIS_SENTINEL_MASTER": MASTER}
                async with storing(connector(settings(files, **named)), timings=PATIENT) as store:
                    assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
                    set_password(primary, tmp_path, NEW)
                    await store.store.close()
                    assert await store.outcome(Kind.RENEW) is Outcome.RENEWED
                other = Authority("other").write(tmp_path / "other.crt")
                distrusting = settings(files, **named) | {"REDIS_TLS_CA_FILE": str(other)}
                async with storing(connector(distrusting), timings=PATIENT) as store:
                    failure = await store.call(Kind.ACQUIRE, limit=PATIENT.call_limit)
    assert isinstance(failure, Failure)
    assert f"is not in REDIS_TLS_CA_FILE ({other})" in failure.text
