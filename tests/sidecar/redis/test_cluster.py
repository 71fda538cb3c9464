"""The store and the watch in a real cluster: they find the owner of the slot, and follow a moved slot."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from threading import Semaphore

import pytest

from ops.local.servers import RedisServer, free_port
from runtime.lookup import AddressInfo, Lookups
from sidecar.commands.connection import CommandError, in_redis
from sidecar.commands.look import look
from sidecar.protocol import Kind, Outcome, Timings
from sidecar.redis.cluster import ClusterPlace
from sidecar.redis.connection import Connector, RedisConnection
from sidecar.redis.failures import Failure
from sidecar.redis.history import read_history
from sidecar.redis.store import fence_of, history_of
from sidecar.redis.watch import WatchMode
from sidecar.server_kind import Cluster, Node, slot_of
from sidecar.settings import RedisAddress, read
from tests.sidecar.conftest import BINARIES
from tests.sidecar.redis.test_malformed import NONSENSE, Hostile
from tests.sidecar.redis.test_watch import watching
from tests.support.redis_cluster import RedisCluster, cluster_port, redis_cluster, send_command
from tests.support.storing import KEY, Storing, at_port, storing
from tests.support.waiting import eventually

FENCE = fence_of(KEY)
_PATIENT = Timings(ttl=60.0, heartbeat=2.0, grant_ttl=1.0, call_limit=1.0)
"""Timings under which the key outlives the failover."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[RedisCluster]:
    async with redis_cluster(tmp_path) as cluster:
        yield cluster


def seeded_by(cluster: RedisCluster, node: int, *, limit: float = 20.0) -> Connector:
    return at_port(cluster.nodes[node].port, Cluster(slot_of(KEY)), limit=limit)


def connections(cluster: RedisCluster) -> list[int]:
    """The number of connections that each node has accepted so far."""
    counts = [
        str(send_command(node, "INFO", "stats")).partition("total_connections_received:")[2] for node in cluster.nodes
    ]
    return [int(count.splitlines()[0]) for count in counts]


async def lead(store: Storing) -> None:
    assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED


@pytest.mark.parametrize("seed", [0, 1])
async def test_any_node_leads_to_the_owner_of_the_slot(cluster: RedisCluster, seed: int) -> None:
    async with storing(seeded_by(cluster, seed)) as store:
        await lead(store)
        assert await store.outcome(Kind.RENEW) is Outcome.RENEWED
        assert await store.outcome(Kind.RELEASE) is Outcome.RELEASED


async def test_an_owner_with_the_name_of_the_seed_is_reached_although_each_lookup_takes_longer_than_a_call(
    tmp_path: Path,
) -> None:
    answers = Semaphore(0)

    def look_up(host: str, port: int) -> Sequence[AddressInfo]:
        answers.acquire()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    lookups = Lookups(look_up)
    async with redis_cluster(tmp_path, masters=1) as cluster:
        port = cluster.nodes[0].port
        address = RedisAddress("redis://seed.test", None, "seed.test", port, None, None)
        connector = Connector(address, Cluster(slot_of(KEY)), lookups=lookups, limit=20.0)
        async with storing(connector) as store:
            try:
                for _ in range(2):  # the lookup for the query of the owner, then the lookup for the owner
                    await store.timeout(Kind.LOOK, limit=0.5)
                    answers.release()
                    await eventually(lambda: not lookups.pending("seed.test", port))
                assert await store.outcome(Kind.LOOK) is Outcome.VACANT
            finally:
                answers.release(10)


async def test_a_moved_slot_fails_no_call_and_the_watch_follows_it(cluster: RedisCluster) -> None:
    connector = seeded_by(cluster, 0)
    async with storing(connector, guard=False) as store, watching(connector.companion) as watched:
        await lead(store)
        await watched.connected(WatchMode.TRACKING)
        source = cluster.owner(KEY)
        assert source is not None
        target = cluster.other(source)
        cluster.move(KEY, target)
        assert await store.outcome(Kind.RENEW) is Outcome.RENEWED
        await watched.connected(WatchMode.TRACKING)
        send_command(target, "DEL", KEY)
        await watched.reports("tracker")


async def test_a_redirected_call_states_its_deadline_in_the_time_of_the_new_node(cluster: RedisCluster) -> None:
    """The estimate of the old node's clock is far behind.

    A deadline computed from this estimate is long past at the new node.
    """
    async with storing(seeded_by(cluster, 0)) as store:
        await lead(store)
        store.store._server_clock.observe(1, store.store._clock())
        source = cluster.owner(KEY)
        assert source is not None
        cluster.move(KEY, cluster.other(source))
        assert await store.outcome(Kind.RENEW) is Outcome.RENEWED


async def test_only_the_redirected_calls_are_sent_again(cluster: RedisCluster) -> None:
    """While the slot migrates, one lease is already at the new node and the other is still at the old node."""
    one, two = "{portfolio}:one", "{portfolio}:two"
    source = cluster.owner(one)
    assert source is not None
    target = cluster.other(source)
    connector = at_port(source.port, Cluster(slot_of(one)), limit=20.0)
    async with storing(connector) as store:
        for key in (one, two):
            assert (await store.call(Kind.ACQUIRE, key=key, limit=10)).__class__.__name__ == "Reply"
        cluster.begin_migration(one, source, target)
        cluster.migrate(one, fence_of(one), history_of(one), source=source, target=target)
        for key in (one, two):
            result = await store.call(Kind.ACQUIRE, key=key, limit=10)
            assert getattr(result, "outcome", result) is Outcome.ADOPTED, key
        assert send_command(target, "CLUSTER", "COUNTKEYSINSLOT", str(slot_of(one))) == 3
        assert send_command(source, "CLUSTER", "COUNTKEYSINSLOT", str(slot_of(one))) == 3
        cluster.migrate(two, fence_of(two), history_of(two), source=source, target=target)
        cluster.end_migration(one, target)
        for key in (one, two):
            result = await store.call(Kind.ACQUIRE, key=key, limit=10)
            assert getattr(result, "outcome", result) is Outcome.ADOPTED, key


async def test_a_vacant_lease_in_a_migrating_slot_is_reported_and_closes_no_connection(
    cluster: RedisCluster,
) -> None:
    async with storing(seeded_by(cluster, 0)) as store:
        await lead(store)
        assert await store.outcome(Kind.RELEASE) is Outcome.RELEASED
        source = cluster.owner(KEY)
        assert source is not None
        target = cluster.other(source)
        cluster.begin_migration(KEY, source, target)
        failure = await store.failure(Kind.ACQUIRE)
        assert failure.kind == "tryagain"
        assert "slot of the cluster is migrating" in failure.text
        assert not failure.may_execute
        assert store.store.connected
        cluster.migrate(FENCE, source=source, target=target)
        cluster.end_migration(KEY, target)
        await lead(store)


async def test_the_replica_of_a_killed_seed_node_takes_over(tmp_path: Path) -> None:
    async with redis_cluster(tmp_path, masters=3, replicas=1) as cluster:
        seed, *_, replica = cluster.nodes
        key = next(f"lease-{n}" for n in range(1000) if cluster.owner(f"lease-{n}") is seed)
        async with storing(at_port(seed.port, Cluster(slot_of(key)), limit=5.0), timings=_PATIENT) as store:
            assert getattr(await store.call(Kind.ACQUIRE, key=key, limit=10), "outcome", None) is Outcome.ACQUIRED
            assert send_command(seed, "WAIT", "1", "5000") == 1
            seed.kill()

            async def renewed() -> bool:
                result = await store.call(Kind.RENEW, key=key, limit=1.0)
                return getattr(result, "outcome", None) is Outcome.RENEWED

            await eventually(renewed)
            assert cluster.owner(key, asked=replica) is replica


def prefers_host_names(node: RedisServer) -> bool:
    """Let a node announce host names; returns False for Redis before 7.0, which cannot do so."""
    answer = str(send_command(node, "CONFIG", "SET", "cluster-preferred-endpoint-type", "hostname"))
    assert answer == "OK" or answer.startswith("Unsupported CONFIG parameter"), answer
    return answer == "OK"


@pytest.mark.parametrize("binary", BINARIES.values(), ids=BINARIES)
async def test_nodes_without_the_host_names_that_the_cluster_prefers_are_reached(tmp_path: Path, binary: Path) -> None:
    async with redis_cluster(tmp_path, binary=binary) as cluster:
        source = cluster.owner(KEY)
        assert source is not None
        target = cluster.other(source)
        for node in cluster.nodes:
            if not prefers_host_names(node):
                return
        seed = cluster.nodes.index(target)
        async with storing(seeded_by(cluster, seed)) as store:
            await lead(store)
            assert str(send_command(target, "GET", KEY)).endswith(f"?:{source.port}")
            cluster.begin_migration(KEY, source, target)
            cluster.migrate(KEY, FENCE, source=source, target=target)
            assert await store.outcome(Kind.RENEW) is Outcome.RENEWED, "ASK"
            cluster.migrate(history_of(KEY), source=source, target=target)
            cluster.end_migration(KEY, target)
            assert await store.outcome(Kind.RENEW) is Outcome.RENEWED, "MOVED"


@pytest.mark.parametrize(("answer", "reason"), [(b"", "no answer in time"), (b"HTTP/1.1 400\r\n\r\n", "not an answer")])
@pytest.mark.parametrize("binary", BINARIES.values(), ids=BINARIES)
async def test_the_failure_of_an_announced_node_names_the_node(
    tmp_path: Path, binary: Path, answer: bytes, reason: str
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        await reader.read()
        writer.close()

    async with redis_cluster(tmp_path, binary=binary) as cluster, AsyncExitStack() as servers:
        for node in cluster.nodes:
            await servers.enter_async_context(await asyncio.start_server(serve, "127.9.9.9", node.port))
            send_command(node, "CONFIG", "SET", "cluster-announce-hostname", "127.9.9.9")
            if not prefers_host_names(node):
                return

        async def announced() -> bool:
            return str(send_command(cluster.nodes[0], "CLUSTER", "SLOTS")).count("'127.9.9.9'") >= len(cluster.nodes)

        await eventually(announced)
        port = cluster.nodes[0].port
        here = {"REDIS_CLUSTER": "true", "LEASE_KEY": "{portfolio}:{name}:leader", "LEASES": "tracker"}
        settings = read(here | {"REDIS_PORT": str(port)})
        async with storing(seeded_by(cluster, 0, limit=2.0)) as store:
            failure = await store.failure(Kind.ACQUIRE, limit=2.0)
        with pytest.raises(CommandError) as error:
            await asyncio.to_thread(in_redis, settings, lambda redis: look(redis, settings.keys["tracker"]))
    for text in (failure.text, str(error.value)):
        assert re.search(rf"127\.9\.9\.9:\d+, which the cluster names: {reason}", text), text


def test_a_redirect_to_an_unknown_host_leads_to_the_same_host() -> None:
    asked: list[Node] = []

    def direct(node: Node) -> RedisConnection:
        asked.append(node)
        return at_port(node[1])()

    place = ClusterPlace(("10.0.0.1", 7000), 0, direct, 1.0)
    place.beside(("?", 7001))
    assert asked == [("10.0.0.1", 7001)]


async def test_a_call_is_redirected_at_most_three_times(cluster: RedisCluster) -> None:
    """Two nodes redirect the call to each other, as nodes with contradicting slot tables do."""
    source = cluster.owner(KEY)
    assert source is not None
    target = cluster.other(source)
    async with storing(seeded_by(cluster, 0)) as store:
        await lead(store)
        slot = str(slot_of(KEY))
        send_command(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", str(send_command(target, "CLUSTER", "MYID")))
        send_command(source, "DEL", KEY)
        send_command(source, "DEL", FENCE)
        before = sum(connections(cluster))
        failure = await store.failure(Kind.ACQUIRE)
        assert failure.kind in ("ask", "moved")
        made = sum(connections(cluster)) - before - 2  # the counts themselves made two connections
        assert made <= 4, made


async def test_the_history_is_stored_at_the_owner_of_the_slot_and_moves_with_the_slot(cluster: RedisCluster) -> None:
    connector = seeded_by(cluster, 0)
    async with storing(connector) as store:
        await lead(store)
        assert store.store.history == "kept"
        [term] = await read_history(connector.companion, KEY, 20.0)
        assert term.end == "holding"
        source = cluster.owner(KEY)
        assert source is not None
        cluster.move(KEY, cluster.other(source))
        assert await store.outcome(Kind.RELEASE) is Outcome.RELEASED
        assert store.store.history == "kept"
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
        newest, *_ = await read_history(connector.companion, KEY, 20.0)
        assert newest.token == store.token


def found_at(port: int) -> Connector:
    """A connector whose only known node of the cluster is at this port."""
    return at_port(port, Cluster(slot_of(KEY)), limit=20.0)


async def test_a_cluster_without_a_reachable_node_is_reported() -> None:
    async with storing(found_at(free_port())) as store:
        failure = await store.failure(Kind.ACQUIRE)
        assert (failure.kind, failure.may_execute) == ("connection", False)


async def test_a_slot_without_an_owner_is_reported(tmp_path: Path) -> None:
    """The only node of the cluster owns no slots."""
    with RedisServer(tmp_path, port=cluster_port(), arguments=("--cluster-enabled", "yes")) as node:
        async with storing(found_at(node.port)) as store:
            failure = await store.failure(Kind.ACQUIRE)
            assert (failure.kind, failure.may_execute) == ("clusterdown", False)
            assert "no node of the cluster owns it" in failure.text


@pytest.mark.parametrize("name", ["nothing", "a list of lists"])
async def test_a_malformed_list_of_slots_is_reported(name: str) -> None:
    async with Hostile(NONSENSE[name]).listening() as server, storing(found_at(server.port)) as store:
        failure = await store.failure(Kind.ACQUIRE)
        text = "the answer to CLUSTER SLOTS does not have the expected shape"
        assert failure == Failure("malformed", text, may_execute=False)
