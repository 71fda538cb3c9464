"""The operator's commands with real sentinels: they reach the primary before and after a failover."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.support.processes import command_of
from tests.support.redis_cluster import send_command
from tests.support.redis_sentinels import Group, redis_sentinels
from tests.support.terminal import Terminal
from tests.support.waiting import eventually

LEASE = "background_services"
KEY = f"portfolio:{LEASE}:leader"
REASON = "the primary moves"


def settings(group: Group) -> dict[str, str]:
    """Settings with short timings, because the sentinels are asked once a heartbeat."""
    return group.environment | {"HEARTBEAT_INTERVAL": "1", "LEASE_TTL": "30", "GRANT_TTL": "1", "REDIS_TIMEOUT": "2"}


async def run(group: Group, *words: str) -> tuple[int, str]:
    """Exit status and output of `python -m sidecar WORDS`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecar", *words, env=os.environ | settings(group), stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_without_a_majority_of_the_sentinels_the_error_names_a_way_without_them(tmp_path: Path) -> None:
    async with redis_sentinels(tmp_path) as group:
        for sentinel in group.sentinels[:2]:
            sentinel.kill()
        status, output = await run(group, "leaders")
    assert (status, "REDIS_HOST and REDIS_PORT of the primary, in place of REDIS_SENTINELS" in output) == (1, True), (
        output
    )


async def test_the_error_about_a_silent_primary_names_it(tmp_path: Path) -> None:
    async with redis_sentinels(tmp_path) as group:
        group.servers[0].pause()
        status, output = await run(group, "leaders")
        group.servers[0].resume()
    named = f"127.0.0.1:{group.servers[0].port}, which the sentinels name: no answer in time"
    assert (status, named in output) == (1, True), output


async def test_every_command_reaches_the_primary(tmp_path: Path) -> None:
    async with redis_sentinels(tmp_path) as group:
        status, output = await run(group, "disable", LEASE, "600", "--reason", REASON)
        assert (status, "disabled for 600 s" in output) == (0, True), output
        status, output = await run(group, "leaders")
        assert (status, REASON in output) == (0, True), output
        status, output = await run(group, "step-down", LEASE)
        assert (status, REASON in output) == (1, True), output
        status, output = await run(group, "enable", LEASE)
        assert status == 0, output
        status, output = await run(group, "history", LEASE)
        assert (status, output) == (0, f"{LEASE}: the history contains no term\n")
        status, output = await run(group, "fence", LEASE)
        assert (status, "nothing to repair" in output) == (0, True), output


async def test_watch_follows_a_failover(tmp_path: Path) -> None:
    async with redis_sentinels(tmp_path) as group:
        send_command(group.servers[0], "SET", KEY, "task-1")
        async with command_of("sidecar", tmp_path / "watched", "watch", **settings(group)) as watching:
            with Terminal(("-m", "sidecar", "watch"), settings(group)) as terminal:
                await eventually(lambda: "held by task-1" in watching.output)
                await eventually(lambda: f"{LEASE}  task-1" in terminal.shown)
                await eventually(lambda: send_command(group.servers[0], "WAIT", "1", "100") == 1)
                group.fail_over()
                await eventually(lambda: group.role(group.servers[1]) == "master")
                send_command(group.servers[1], "SET", KEY, "task-2")
                await eventually(lambda: "held by task-2" in watching.output)
                await eventually(lambda: f"{LEASE}  task-2" in terminal.shown)
                terminal.press("\x03")
                assert terminal.status() == 0
            assert watching.stop(signal.SIGINT) == 0
