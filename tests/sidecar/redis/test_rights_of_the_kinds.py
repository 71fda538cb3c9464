"""A user with the least rights in a cluster and behind sentinels, and the effect of each missing right."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ops.local.servers import RedisServer
from sidecar.protocol import Kind, Outcome
from sidecar.redis.connection import Connector
from sidecar.redis.failures import Failure
from sidecar.redis.store import fence_of
from sidecar.redis.watch import WatchMode
from sidecar.server_kind import Cluster, Sentinels, slot_of
from tests.sidecar.redis.test_watch import watching
from tests.support.redis_cluster import RedisCluster, redis_cluster, send_command
from tests.support.redis_rights import OF_A_CLUSTER, OF_SENTINELS, SENTINELS_OWN, allow
from tests.support.redis_sentinels import Group, redis_sentinels
from tests.support.storing import KEY, at_port, storing
from tests.support.waiting import eventually


def as_user(port: int, kind: Cluster | Sentinels) -> Connector:
    return at_port(port, kind, username="sidecar", password="secret", limit=10.0)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[RedisCluster]:
    async with redis_cluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Group]:
    async with redis_sentinels(tmp_path) as group:
        yield group


async def test_in_a_cluster_the_least_rights_are_enough_for_a_moved_or_migrating_slot(
    cluster: RedisCluster,
) -> None:
    allow(cluster.nodes, *OF_A_CLUSTER)
    source = cluster.owner(KEY)
    assert source is not None
    target = cluster.other(source)
    connector = as_user(target.port, Cluster(slot_of(KEY)))  # the seed is not the owner
    async with storing(connector, guard=True) as store, watching(connector.companion) as watch:
        assert await store.outcome(Kind.LOOK) is Outcome.VACANT
        await watch.connected(WatchMode.TRACKING)
        send_command(
            source, "HSET", fence_of(KEY), "run_id", _run_id(source)
        )  # as if this node had acted on the lease before
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
        cluster.begin_migration(KEY, source, target)
        cluster.migrate(KEY, fence_of(KEY), source=source, target=target)
        assert await store.outcome(Kind.RENEW) is Outcome.RENEWED, "the call follows ASK"
        cluster.end_migration(KEY, target)
        assert await store.outcome(Kind.RENEW) is Outcome.RENEWED, "the call follows MOVED"
        await eventually(lambda: watch.watch.mode is WatchMode.TRACKING)
        watch.changes.clear()
        assert await store.outcome(Kind.RELEASE) is Outcome.RELEASED
        await eventually(lambda: "tracker" in watch.changes)
        assert (store.store.guard, store.store.release_notice, watch.watch.refusal) == ("on", "sent", None)


async def test_without_the_right_to_cluster_slots_the_owner_is_found_through_redirects(cluster: RedisCluster) -> None:
    allow(cluster.nodes, "+asking")
    source = cluster.owner(KEY)
    assert source is not None
    async with storing(as_user(cluster.other(source).port, Cluster(slot_of(KEY)))) as store:
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED


async def test_without_the_right_to_asking_a_lease_fails_until_its_slot_has_migrated(
    cluster: RedisCluster,
) -> None:
    allow(cluster.nodes, "+cluster|slots")
    source = cluster.owner(KEY)
    assert source is not None
    target = cluster.other(source)
    async with storing(as_user(source.port, Cluster(slot_of(KEY)))) as store:
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
        cluster.begin_migration(KEY, source, target)
        cluster.migrate(KEY, fence_of(KEY), source=source, target=target)
        failure = await store.failure(Kind.RENEW)
        assert "no permission for the command ASKING" in failure.text
        cluster.end_migration(KEY, target)
        assert await store.outcome(Kind.RENEW) is Outcome.RENEWED


async def test_behind_sentinels_the_least_rights_are_enough_for_a_failover(group: Group) -> None:
    allow(group.servers, *OF_SENTINELS)
    for sentinel in group.sentinels:
        answer = send_command(sentinel, "ACL", "SETUSER", "asker", "reset", "on", ">asks", *SENTINELS_OWN)
        assert answer == "OK", answer
    kind = Sentinels(group.kind.nodes, group.kind.master, "asker", "asks")
    async with storing(as_user(1, kind)) as store:
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
        await eventually(lambda: send_command(group.servers[0], "WAIT", "1", "100") == 1)
        group.fail_over()
        heir = group.servers[1]
        await eventually(lambda: sum(group.primary(each) is heir for each in range(3)) >= 2)
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ADOPTED
        assert send_command(heir, "GET", KEY) == "a"


async def test_behind_sentinels_without_the_right_to_role_nobody_leads_and_the_reason_is_reported(group: Group) -> None:
    allow(group.servers)
    async with storing(as_user(1, group.kind)) as store:
        failure = await store.failure(Kind.ACQUIRE)
        assert isinstance(failure, Failure)
        assert (failure.kind, "no permission for the command ROLE" in failure.text) == ("noperm", True)
        allow(group.servers, *OF_SENTINELS)
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED


def _run_id(server: RedisServer) -> str:
    return str(send_command(server, "INFO", "server")).partition("run_id:")[2].split()[0]
