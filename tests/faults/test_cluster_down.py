"""A cluster that does not serve the slot of the lease."""

from pathlib import Path

from ops.local.servers import RedisServer
from sidecar.protocol import Kind, Outcome
from tests.sidecar.conftest import client_of, command
from tests.support.redis_cluster import cluster_port
from tests.support.storing import at_port, storing
from tests.support.waiting import eventually


async def test_a_cluster_that_does_not_serve_the_slot_is_reported_and_used_once_it_does(tmp_path: Path) -> None:
    with RedisServer(tmp_path, port=cluster_port(), arguments=("--cluster-enabled", "yes")) as server:
        async with storing(at_port(server.port)) as store:
            failure = await store.failure(Kind.ACQUIRE)
            assert (failure.kind, failure.may_execute) == ("clusterdown", False)
            with client_of(server) as redis:
                command(redis, "CLUSTER", "ADDSLOTS", *map(str, range(2**14)))
                await eventually(lambda: "cluster_state:ok" in str(command(redis, "CLUSTER", "INFO")))
            assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED, "key and fence must share a slot"
