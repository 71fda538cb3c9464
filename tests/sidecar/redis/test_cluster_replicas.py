"""MIN_REPLICAS in a real cluster: the replicas of the node that executes a call confirm it, also after a redirect."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.exceptions import AskError

from ops.local.servers import RedisServer
from sidecar.protocol import Kind, Outcome, Timings
from sidecar.redis.connection import Connector
from sidecar.redis.store import fence_of
from sidecar.server_kind import Cluster, slot_of
from tests.support.redis_cluster import RedisCluster, redis_cluster, send_command
from tests.support.storing import KEY, Storing, at_port, storing
from tests.support.waiting import eventually

SLOW = Timings(ttl=60.0, heartbeat=20.0, grant_ttl=5.0, call_limit=10.0)
"""Timings with a long limit for calls.

WAIT gets half of the limit. A call that is redirected to a node without replicas uses up this half.
"""


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[RedisCluster]:
    """Two primaries; the first one has a replica."""
    async with redis_cluster(tmp_path, masters=2, replicas=1) as cluster:
        yield cluster


def with_replica(cluster: RedisCluster) -> RedisServer:
    return cluster.nodes[0]


def without_replica(cluster: RedisCluster) -> RedisServer:
    return cluster.nodes[1]


def connector(cluster: RedisCluster) -> Connector:
    return at_port(cluster.nodes[0].port, Cluster(slot_of(KEY)), limit=SLOW.call_limit)


def place(cluster: RedisCluster, node: RedisServer) -> None:
    """Make a node the owner of the lease's slot."""
    if cluster.owner(KEY) is not node:
        cluster.move(KEY, node)
    assert cluster.owner(KEY) is node


async def renew(store: Storing) -> Outcome:
    """The outcome of a renewal, which always writes because of MIN_REPLICAS, even if the key is fresh."""
    result = await store.call(Kind.RENEW, limit=SLOW.call_limit)
    outcome = getattr(result, "outcome", None)
    assert isinstance(outcome, Outcome), result
    return outcome


@pytest.mark.slow
async def test_a_redirected_call_is_confirmed_by_the_replicas_of_the_new_node(cluster: RedisCluster) -> None:
    place(cluster, with_replica(cluster))
    async with storing(connector(cluster), min_replicas=1, timings=SLOW) as store:
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
        place(cluster, without_replica(cluster))
        assert await renew(store) is Outcome.UNCONFIRMED, "the old node's replica does not count"
        place(cluster, with_replica(cluster))
        assert await renew(store) is Outcome.RENEWED
        assert store.store.connected


@pytest.mark.parametrize("confirmed", [True, False])
async def test_a_call_redirected_by_ask_is_confirmed_by_the_replicas_of_that_node(
    cluster: RedisCluster, confirmed: bool
) -> None:
    """The slot is migrating, and the keys are already at the new node: ASK redirects only this call."""
    nodes = without_replica(cluster), with_replica(cluster)
    source, target = nodes if confirmed else nodes[::-1]
    place(cluster, source)
    async with storing(connector(cluster), timings=SLOW) as store:
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
        token = store.token
    cluster.begin_migration(KEY, source, target)
    cluster.migrate(KEY, fence_of(KEY), source=source, target=target)
    async with storing(connector(cluster), min_replicas=1, timings=SLOW) as store:
        store.token = token
        assert type(send_command(source, "GET", KEY)) is AskError
        assert await renew(store) is (Outcome.RENEWED if confirmed else Outcome.UNCONFIRMED)


async def test_a_replica_that_took_over_confirms_only_with_replicas_of_its_own(cluster: RedisCluster) -> None:
    first, _, replica = cluster.nodes
    place(cluster, first)
    async with storing(connector(cluster), min_replicas=1, timings=SLOW) as store:
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
        answer = send_command(replica, "CLUSTER", "FAILOVER")
        assert answer == "OK", answer
        # The old primary becomes a replica of the new primary, and refuses writes over the open connection with MOVED.

        async def renewed() -> bool:
            result = await store.call(Kind.RENEW, limit=SLOW.call_limit)
            return getattr(result, "outcome", None) is Outcome.RENEWED

        await eventually(renewed, within=50)
        assert cluster.owner(KEY) is replica
        first.kill()
        assert await renew(store) is Outcome.UNCONFIRMED
