"""A connection whose other end disappeared silently: the kernel drops packets, and nothing resets the connection."""

from pathlib import Path

import aiohttp
import psutil
import pytest

from ops.local.servers import RedisServer
from runtime.clock import elapsed
from tests.faults.half_open import FilteredProxy, iptables_drop, iptables_lacks
from tests.faults.tasks import Task, running
from tests.support.waiting import eventually

LEASE = 12.0
"""LEASE_TTL in seconds, much longer than the time until the failed call is reported."""


def connections(task: Task) -> set[int]:
    """Return the local ports of the sidecar's open connections to Redis."""
    assert task.sidecar.process is not None
    found = psutil.Process(task.sidecar.process.pid).net_connections(kind="tcp")
    return {one.laddr.port for one in found if one.raddr[1:] == (task.way.port,)}


@pytest.mark.slow
@pytest.mark.parametrize("by", ["socket filter"] if iptables_lacks() else ["socket filter", "iptables"])
async def test_a_half_open_connection_is_closed_at_the_limit_of_the_call_and_replaced(
    redis_of_its_own: RedisServer, tmp_path: Path, session: aiohttp.ClientSession, by: str
) -> None:
    async with FilteredProxy(redis_of_its_own.port) as way:
        task = Task(tmp_path, "task-a", way, session, LEASE_TTL=f"{LEASE:g}", GRANT_TTL="5")
        async with running(task), task.campaigning():
            await eventually(lambda: task.leads)
            old, token = connections(task), task.token
            assert old
            with way.dropping() if by == "socket filter" else iptables_drop(way.port):
                dropped_at = elapsed()
                await eventually(lambda: _times_out(task), within=8)  # a heartbeat, a call limit and a standstill
                await eventually(lambda: task.leads)  # the report came long before the deadline
                await eventually(lambda: not task.leads)
                assert task.beliefs[-1].end <= dropped_at + LEASE * 5 / 6
                await eventually(lambda: not connections(task) & old)
            await eventually(lambda: task.leads)
            assert task.token >= token
            assert (await task.status())["trouble"] is None


async def _times_out(task: Task) -> bool:
    return "timeout" in str((await task.status())["trouble"])
