"""A renewal must write something before WAIT, because otherwise WAIT counts even a frozen replica."""

from pathlib import Path

import pytest
from redis import Redis

from ops.local.servers import RedisServer
from runtime.clock import elapsed
from sidecar.protocol import Kind, Outcome, Timings
from sidecar.redis.store import RedisStore
from tests.sidecar.conftest import BINARIES, client_of
from tests.support.storing import KEY, Storing, at_port
from tests.support.waiting import eventually

SLOW = Timings(ttl=60.0, heartbeat=20.0, grant_ttl=1.0, call_limit=0.5)
"""Timings under which a key stays fresh for ten seconds, half a heartbeat.

The test needs this time, because replicas acknowledge only once a second.
"""
QUIET = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "3600")
"""Arguments for a synchronization without a delay, and without the primary's pings.

A ping is also a write, and would hide a renewal that writes nothing.
"""


@pytest.mark.parametrize("binary", sorted(BINARIES))
async def test_a_frozen_replica_does_not_confirm_the_renewal_of_a_fresh_lease(tmp_path: Path, binary: str) -> None:
    path = BINARIES[binary]
    with RedisServer(tmp_path / "primary", binary=path, arguments=QUIET) as primary:
        replicates = (*QUIET, "--replicaof", "127.0.0.1", str(primary.port))
        with (
            RedisServer(tmp_path / "replica", binary=path, arguments=replicates) as replica,
            client_of(primary) as operator,
        ):
            await eventually(lambda: _acknowledged(operator))
            connect = at_port(primary.port)
            store = RedisStore(connect, "a", SLOW, clock=elapsed, failover_guard=False, min_replicas=1)
            caller = Storing(store)
            await eventually(lambda: _wins(caller))  # a replica on a busy machine may answer too late
            await store.close()
            operator.pexpire(KEY, int(SLOW.ttl * 1000))  # the key is fresh, so the renewal does not extend it
            await eventually(lambda: _acknowledged(operator))
            replica.pause()
            renewed = await caller.outcome(Kind.RENEW)
            await store.close()
            assert renewed is Outcome.UNCONFIRMED


async def _wins(store: Storing) -> bool:
    return await store.outcome(Kind.ACQUIRE) in (Outcome.ACQUIRED, Outcome.ADOPTED)


def _acknowledged(primary: Redis) -> bool:
    """True if the replica has acknowledged every write."""
    info = primary.info("replication")
    return bool(info.get("slave0", {}).get("offset") == info["master_repl_offset"])
