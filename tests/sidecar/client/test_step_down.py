"""An operator's step-down with real sidecars, real clients and a real Redis."""

import asyncio
from pathlib import Path

import aiohttp
import pytest
from redis import Redis

from ops.local.servers import RedisServer
from sidecar.redis.history import read_history
from tests.sidecar.client.test_real_sidecar import Task
from tests.sidecar.client.test_real_sidecar import sidecars as sidecars
from tests.sidecar.conftest import client_of
from tests.support.hostile_sidecar import NAME
from tests.support.operator import step_down
from tests.support.processes import RealSidecar, get_json, killed_at_exit
from tests.support.storing import at_port
from tests.support.waiting import eventually

QUICK = {"LEASE_TTL": "6", "HEARTBEAT_INTERVAL": "1", "GRANT_TTL": "3", "REDIS_TIMEOUT": "1.5", "LOG_FORMAT": "json"}
"""Timings with a rest period of 1.5 s after a step-down."""


def key_of(sidecar: RealSidecar) -> str:
    return sidecar.environment["LEASE_KEY"].format(name=NAME)


async def status(sidecar: RealSidecar) -> dict[str, object]:
    shown = await get_json(f"{sidecar.url}/status")
    return dict(shown["leases"][NAME]) if shown else {}


async def reasons(redis_server: RedisServer, sidecar: RealSidecar) -> list[tuple[str, str | None]]:
    terms = await read_history(at_port(redis_server.port), key_of(sidecar), 10.0)
    return [(str(term.end), term.reason) for term in terms]


async def test_after_a_step_down_the_other_task_leads_once_the_work_has_stopped(
    sidecars: tuple[RealSidecar, RealSidecar], redis_server: RedisServer
) -> None:
    """The previous holder's rest period is 15 s, but it ends early because another task leads."""
    events: list[str] = []
    by_url = {sidecar.url: sidecar for sidecar in sidecars}
    with client_of(redis_server) as redis:
        async with Task(sidecars[0].url, events).open() as one, Task(sidecars[1].url, events).open() as other:
            await eventually(lambda: one.works() or other.works())
            if other.works():
                one, other = other, one
            await eventually(lambda: other.lead.holder == one.lead.instance_id)
            await eventually(lambda: _watches(by_url[one.url]))
            step_down(redis, key_of(sidecars[0]))
            await eventually(other.works)
            assert one.ended[-1] <= other.began[-1], "the work of two terms ran at once"
            await eventually(lambda: one.lead.holder == other.lead.instance_id)
            assert (await status(by_url[one.url]))["step_down"] is None, "the rest has ended because another task leads"
            ends = await reasons(redis_server, sidecars[0])
            assert ends[:2] == [("holding", None), ("released", "step-down")]
            other_url = by_url[other.url]
            step_down(redis, key_of(sidecars[0]))
            await eventually(one.works)
            assert (await status(other_url))["is_leader"] is False


@pytest.mark.parametrize("notice", [True, False])
async def test_after_a_step_down_a_single_task_rests_and_then_leads_again(
    redis: Redis, redis_server: RedisServer, tmp_path: Path, notice: bool
) -> None:
    sidecar = RealSidecar(tmp_path, redis_server, "task-a", **QUICK)
    with killed_at_exit(sidecar):
        sidecar.start()
        await eventually(lambda: get_json(f"{sidecar.url}/healthz"), within=60)
        async with Task(sidecar.url, []).open() as task:
            await eventually(task.works)
            token = int(step_down(redis, key_of(sidecar), notice=notice))
            await eventually(lambda: redis.get(key_of(sidecar)) is None)
            released = asyncio.get_running_loop().time()
            assert not task.works()
            assert str((await status(sidecar))["step_down"]).startswith("stepped down: leaves the lease to others")
            assert await _metric(sidecar, f'sidecar_stepped_down{{lease="{NAME}"}} 1.0')
            await eventually(task.works)
            assert asyncio.get_running_loop().time() - released > 1.0
            assert task.lead.token is not None
            assert task.lead.token > token
            assert (await status(sidecar))["step_down"] is None
            assert not redis.hexists(f"fence:{{{key_of(sidecar)}}}", "step_down")
    assert await reasons(redis_server, sidecar) != []
    reports = [line for line in sidecar.lines() if "asked this task to step down" in line["message"]]
    assert [line["token"] for line in reports] == [token]
    assert any(line.get("reason") == "step_down" and line.get("token") == token for line in sidecar.lines())


async def test_a_watch_reports_a_step_down_long_before_the_next_renewal(
    redis: Redis, redis_server: RedisServer, tmp_path: Path
) -> None:
    patient = {"LEASE_TTL": "600", "HEARTBEAT_INTERVAL": "300", "GRANT_TTL": "10", "REDIS_TIMEOUT": "5"}
    sidecar = RealSidecar(tmp_path, redis_server, "task-a", **patient)
    with killed_at_exit(sidecar):
        sidecar.start()
        await eventually(lambda: get_json(f"{sidecar.url}/healthz"), within=60)
        async with Task(sidecar.url, []).open() as task:
            await eventually(task.works)
            await eventually(lambda: _watches(sidecar))
            # After the notice of its own acquire the leader renews once, and this renewal would find the step-down.
            await eventually(lambda: _metric(sidecar, "sidecar_renewal_duration_seconds_count 1.0"))
            step_down(redis, key_of(sidecar))
            await eventually(lambda: redis.get(key_of(sidecar)) is None)


async def test_a_client_that_ignores_a_step_down_loses_the_lease_when_its_grant_ends(
    redis: Redis, redis_server: RedisServer, tmp_path: Path
) -> None:
    sidecar = RealSidecar(tmp_path, redis_server, "task-a", **QUICK)
    with killed_at_exit(sidecar):
        sidecar.start()
        await eventually(lambda: get_json(f"{sidecar.url}/healthz"), within=60)

        async def asked() -> dict[str, object]:
            async with aiohttp.ClientSession() as session, session.get(f"{sidecar.url}/is-leader/{NAME}") as response:
                return dict(await response.json())

        async def leads() -> bool:
            return bool((await asked())["is_leader"])

        await eventually(leads)
        step_down(redis, key_of(sidecar))
        await eventually(lambda: _is(sidecar, "draining"))
        assert redis.get(key_of(sidecar)) == "task-a", "the client may still act"
        answer = await asked()
        assert (answer["is_leader"], answer["token"], answer["expires_in"]) == (False, None, None)
        await eventually(lambda: redis.get(key_of(sidecar)) is None)


async def _is(sidecar: RealSidecar, state: str) -> bool:
    return (await status(sidecar)).get("state") == state


async def _watches(sidecar: RealSidecar) -> bool:
    shown = await get_json(f"{sidecar.url}/status")
    return bool(shown) and shown["watch"]["mode"] != "off"


async def _metric(sidecar: RealSidecar, line: str) -> bool:
    async with aiohttp.ClientSession() as session, session.get(sidecar.metrics_url) as response:
        return line in await response.text()
