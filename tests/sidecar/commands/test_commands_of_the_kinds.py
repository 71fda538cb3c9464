"""The operator's commands in a cluster and through sentinels, as the user with the least rights."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from sidecar.redis.store import fence_of
from tests.support.processes import command_of
from tests.support.redis_cluster import redis_cluster, send_command
from tests.support.redis_rights import OF_A_CLUSTER, OF_SENTINELS, allow
from tests.support.redis_sentinels import redis_sentinels
from tests.support.waiting import eventually

LEASE = "background_services"
KEY = f"portfolio:{LEASE}:leader"
SETTINGS = {
    "REDIS_USERNAME": "sidecar", "REDIS_PASSWORD": "secret", "LEASES": LEASE, "LEASE_TTL": "0.5",
    "HEARTBEAT_INTERVAL": "0.2", "GRANT_TTL": "0.1",
}  # fmt: skip
"""Settings with a short ttl, because `fence` waits for one ttl."""


async def run(folder: Path, settings: Mapping[str, str], *words: str) -> str:
    """Run `python -m sidecar WORDS`, which must succeed; return its output."""
    async with command_of("sidecar", folder / f"output of {words[0]}", *words, **SETTINGS, **settings) as command:
        assert await command.end() == 0, command.output
        return command.output


async def run_all(folder: Path, settings: Mapping[str, str]) -> None:
    """Run disable, leaders, fence and enable. The fence is repaired while the lease is disabled."""
    assert "was held by task-1" in await run(folder, settings, "disable", LEASE, "600")
    assert "DISABLED" in await run(folder, settings, "leaders")
    assert "repaired" in await run(folder, settings, "fence", LEASE, "--above", "99")
    assert "is enabled" in await run(folder, settings, "enable", LEASE)


@pytest.mark.parametrize("state", ["settled", "moved", "migrating"])
async def test_in_a_cluster_the_least_rights_are_enough_for_every_command(tmp_path: Path, state: str) -> None:
    async with redis_cluster(tmp_path) as cluster:
        allow(cluster.nodes, *OF_A_CLUSTER)
        source = cluster.owner(KEY)
        assert source is not None
        target = cluster.other(source)
        send_command(source, "SET", KEY, "task-1", "EX", "1000")
        send_command(source, "HSET", fence_of(KEY), "token", "17")
        if state == "moved":
            cluster.move(KEY, target)
        if state == "migrating":
            cluster.begin_migration(KEY, source, target)
            cluster.migrate(KEY, fence_of(KEY), source=source, target=target)
        seed = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(source.port), "REDIS_CLUSTER": "true"}
        await run_all(tmp_path, seed)
        if state == "migrating":
            cluster.end_migration(KEY, target)
        owner = source if state == "settled" else target
        assert (send_command(owner, "EXISTS", KEY), send_command(owner, "HGET", fence_of(KEY), "token")) == (0, "99")


@pytest.mark.parametrize("failover", [False, True])
async def test_through_sentinels_every_command_reaches_the_primary(tmp_path: Path, failover: bool) -> None:
    """After a failover the old primary continues to serve and also has the lease."""
    async with redis_sentinels(tmp_path) as group:
        allow(group.servers, *OF_SENTINELS)
        primary, heir = group.servers
        send_command(primary, "SET", KEY, "task-1", "EX", "1000")
        send_command(primary, "HSET", fence_of(KEY), "token", "17")
        await eventually(lambda: send_command(primary, "WAIT", "1", "100") == 1)
        if failover:
            group.fail_over()
            await eventually(lambda: sum(group.primary(each) is heir for each in range(3)) >= 2)
        await run_all(tmp_path, group.environment)
        assert send_command(heir if failover else primary, "HGET", fence_of(KEY), "token") == "99"


async def test_a_command_reports_that_too_few_sentinels_agree(tmp_path: Path) -> None:
    async with redis_sentinels(tmp_path) as group:
        for sentinel in group.sentinels[1:]:
            sentinel.kill()
        settings = SETTINGS | group.environment
        async with command_of("sidecar", tmp_path / "command", "leaders", **settings) as command:
            assert await command.end() == 1
        assert "1 of 3 sentinels name the same primary, but a majority is needed" in command.output
        assert "secret" not in command.output
