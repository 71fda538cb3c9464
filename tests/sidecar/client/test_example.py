"""`examples/fastapi_app.py` as a user runs it: under uvicorn, with a real sidecar."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ops.local.servers import RedisServer, free_port
from tests.support.processes import Process, RealSidecar, get_json, killed_at_exit
from tests.support.waiting import eventually


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_the_example_works_only_while_it_leads(redis_server: RedisServer, tmp_path: Path, loop: str) -> None:
    # The grant outlasts a pause of a busy machine. Otherwise the lease could move, and both tasks would tick.
    sidecars = [RealSidecar(tmp_path, redis_server, name, GRANT_TTL="10") for name in ("task-a", "task-b")]
    ports = [free_port(), free_port()]
    command = ["-m", "uvicorn", "--app-dir", "examples", "fastapi_app:app", "--loop", loop, "--port"]
    apps = [
        Process(tmp_path / f"app-{port}.log", [*command, str(port)], SIDECAR_URL=sidecar.url)
        for port, sidecar in zip(ports, sidecars, strict=True)
    ]
    with killed_at_exit(*sidecars, *apps):
        for process in (*sidecars, *apps):
            process.start()
        urls = [f"http://127.0.0.1:{port}/" for port in ports]
        shown: list[dict[str, Any]] = []

        async def one_leads() -> bool:
            shown[:] = [await get_json(url) for url in urls]
            leads = [one.get("is_leader") for one in shown]
            return sorted(map(bool, leads)) == [False, True] and shown[0].get("holder") == shown[1].get("holder")

        await eventually(one_leads, within=60)
        leader = 0 if shown[0]["is_leader"] else 1
        assert shown[leader]["holder"] == shown[leader]["instance_id"]
        assert shown[leader]["token"] > 0
        assert shown[leader]["ticks"] > 0
        assert shown[1 - leader]["token"] is None
        assert shown[1 - leader]["ticks"] == 0

        status = await asyncio.to_thread(apps[leader].stop, signal.SIGTERM)
        assert status in (0, -signal.SIGTERM)  # uvicorn raises the signal again after its shutdown
        assert "stopped after" in apps[leader].output
        assert "Traceback" not in apps[leader].output

        heir: dict[str, Any] = {}

        async def next_task_leads() -> bool:
            heir.update(await get_json(urls[1 - leader]))
            return bool(heir.get("is_leader"))

        await eventually(next_task_leads)
        assert heir["token"] > shown[leader]["token"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_an_open_stream_does_not_keep_the_lease(
    redis_server: RedisServer, tmp_path: Path, loop: str, number: signal.Signals
) -> None:
    sidecars = [RealSidecar(tmp_path, redis_server, name, GRANT_TTL="10") for name in ("task-a", "task-b")]
    ports = [free_port(), free_port()]
    command = ["-m", "uvicorn", "--app-dir", "examples", "fastapi_app:app", "--loop", loop, "--port"]
    leader, heir = [
        Process(tmp_path / f"app-{port}.log", [*command, str(port)], SIDECAR_URL=sidecar.url)
        for port, sidecar in zip(ports, sidecars, strict=True)
    ]
    urls = [f"http://127.0.0.1:{port}" for port in ports]

    async def leads(url: str) -> bool:
        return bool((await get_json(url)).get("is_leader"))

    with killed_at_exit(*sidecars, leader, heir):
        for process in (*sidecars, leader):
            process.start()
        await eventually(lambda: leads(urls[0]), within=60)
        heir.start()
        await eventually(lambda: get_json(urls[1]), within=60)
        async with aiohttp.ClientSession() as session, session.get(f"{urls[0]}/ticks") as stream:
            assert (await stream.content.readline()).startswith(b"data: ")
            leader.send(number)
            await eventually(lambda: leads(urls[1]))
            assert leader.process is not None
            assert leader.process.poll() is None, "the process waits for the open stream"
            assert "stopped after" in leader.output
            assert await stream.content.readline() == b"\n"
        assert await asyncio.to_thread(leader.wait) in (0, -number)  # uvicorn raises the signal again
        assert "Traceback" not in leader.output
