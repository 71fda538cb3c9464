"""The operator's commands in a real cluster: from any node, they reach the node that has the keys."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from sidecar.redis.store import fence_of, history_of
from tests.support.processes import command_of
from tests.support.redis_cluster import redis_cluster, send_command
from tests.support.waiting import eventually

KEY = "{portfolio}:background_services:leader"
REASON = "the slot moves"
LOOKUPS_OF_5_S = """
import socket, sys, time
numeric = socket.getaddrinfo

def slow(host, *arguments, **options):
    if host != "slow.test" or options.get("flags", 0) & socket.AI_NUMERICHOST:
        return numeric(host, *arguments, **options)
    time.sleep(5)
    return numeric("127.0.0.1", *arguments, **options)

socket.getaddrinfo = slow
from sidecar.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
"""Program like `python -m sidecar` in which the lookup of slow.test takes 5 s, as with a dead first name server."""


def settings(port: int) -> dict[str, str]:
    """The environment of a command that connects to the node at this port first."""
    return {
        "REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(port), "REDIS_CLUSTER": "true", "LEASE_TTL": "0.5",
        "HEARTBEAT_INTERVAL": "0.2", "GRANT_TTL": "0.1", "LEASE_KEY": "{portfolio}:{name}:leader",
    }  # fmt: skip


async def run(port: int, *words: str, program: tuple[str, ...] = ("-m", "sidecar"), **changes: str) -> tuple[int, str]:
    """Exit status and output of `python -m sidecar WORDS`."""
    environment = os.environ | settings(port) | changes
    process = await asyncio.create_subprocess_exec(
        sys.executable, *program, *words, env=environment, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


@pytest.mark.slow
@pytest.mark.parametrize("state", ["settled", "moved", "migrating"])
async def test_every_command_reaches_the_node_that_has_the_keys(tmp_path: Path, state: str) -> None:
    async with redis_cluster(tmp_path) as cluster:
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
        for port in (source.port, target.port):
            status, output = await run(port, "disable", "background_services", "600", "--reason", REASON)
            assert (status, "disabled for 600 s" in output) == (0, True), output
            assert "could not be stored" not in output
            status, output = await run(port, "leaders")
            # While the slot migrates, no node executes the calls for the other lease, which has no keys yet.
            if state != "migrating":
                assert (status, "DISABLED" in output, REASON in output) == (0, True, True), output
            status, output = await run(port, "fence", "background_services", "--above", "99")
            assert (status, "repaired" in output or "nothing to repair" in output) == (0, True), output
            status, output = await run(port, "enable", "background_services")
            assert (status, "enabled" in output) == (0, True), output


async def test_history_and_step_down_reach_the_node_too(tmp_path: Path) -> None:
    async with redis_cluster(tmp_path) as cluster:
        source = cluster.owner(KEY)
        assert source is not None
        send_command(source, "SET", KEY, "task-1", "EX", "1000")
        send_command(source, "HSET", fence_of(KEY), "token", "17", "holder", "task-1")
        send_command(
            source, "XADD", history_of(KEY), "*", "event", "acquire", "token", "17", "holder", "task-1", "reason", ""
        )
        for port in (source.port, cluster.other(source).port):
            status, output = await run(port, "history", "background_services")
            assert (status, "leads now" in output) == (0, True), output
            status, output = await run(port, "step-down", "background_services")
            assert (status, "has not released the lease within" in output) == (1, True), output
            assert send_command(source, "HGET", fence_of(KEY), "step_down") == "17"


@pytest.mark.slow
async def test_a_command_waits_for_a_lookup_that_takes_5_s_because_the_first_name_server_is_dead(
    tmp_path: Path,
) -> None:
    async with redis_cluster(tmp_path) as cluster:
        port = cluster.nodes[0].port
        status, output = await run(port, "leaders", program=("-c", LOOKUPS_OF_5_S), REDIS_HOST="slow.test")
    assert (status, "background_services" in output) == (0, True), output


async def test_watch_follows_a_moved_slot(tmp_path: Path) -> None:
    async with redis_cluster(tmp_path) as cluster:
        source = cluster.owner(KEY)
        assert source is not None
        target = cluster.other(source)
        send_command(source, "SET", KEY, "task-1")
        async with command_of("sidecar", tmp_path / "watched", "watch", **settings(target.port)) as watching:
            await eventually(lambda: "held by task-1" in watching.output)
            cluster.move(KEY, target)
            send_command(target, "SET", KEY, "task-2")
            await eventually(lambda: "held by task-2" in watching.output)
            assert watching.stop(signal.SIGINT) == 0
