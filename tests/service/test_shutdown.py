"""The API and its commands end in time after a signal, whatever hangs, and print no traceback."""

import asyncio
import base64
import json
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import psutil
import pytest

from ops.local.servers import free_port
from tests.runtime.test_connecting import dropping
from tests.service.work.test_protection import Agent
from tests.support.fake_sidecar import LeadingSidecar
from tests.support.outputs import full_pipe, output
from tests.support.processes import LIMIT, ROOT, Process, Service, command_of
from tests.support.proxy import Proxy
from tests.support.served_api import PORTFOLIO
from tests.support.waiting import eventually

SHUTDOWN_TIMEOUT = 4.0
LATE = 30.0
"""Limit for a process to end, in seconds. Lookups and threads that hang in these tests hang for ten minutes."""

HANGING_LOOKUPS = """
import socket, time
as_it_was = socket.getaddrinfo
def hangs(host, *args, flags=0, **more):
    if str(host).endswith(".example") and not flags & socket.AI_NUMERICHOST:
        time.sleep(600)
    return as_it_was(host, *args, flags=flags, **more)
socket.getaddrinfo = hangs
"""
HANGING_THREAD = """
import service.work.tracker, time
service.work.tracker.value_block = lambda *_: time.sleep(600)
"""


def elsewhere(port: int, name: str = "127.0.0.1") -> dict[str, str]:
    """Settings that direct every outgoing connection to an address."""
    return {
        "DATABASE_URL": f"postgresql://user:secret@{name}:{port}/some",
        "AUTH": "supabase",
        "SUPABASE_URL": f"{'http' if name[0].isdigit() else 'https'}://{name}:{port}",
        "PRICE_SOURCE": "alpaca",
        "APCA_API_KEY_ID": "one",
        "APCA_API_SECRET_KEY": "two",
        "ALPACA_DATA_URL": f"{'http' if name[0].isdigit() else 'https'}://{name}:{port}",
        "ECS_AGENT_URI": f"http://{name}:{port}",
        "SIDECAR_URL": f"http://{name}:{port}",
    }


@pytest.fixture(params=["lookups hang", "packets are dropped", "servers are silent"])
def nowhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Settings with which every outgoing connection hangs."""
    if request.param == "lookups hang":
        (tmp_path / "sitecustomize.py").write_text(HANGING_LOOKUPS)
        yield {**elsewhere(443, "nowhere.example"), "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    elif request.param == "packets are dropped":
        with dropping() as address:
            yield elsewhere(address[4][1])
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield elsewhere(listener.getsockname()[1])


def unknown_token() -> str:
    """An access token with an unknown key, for which the service asks the key server."""
    parts = ({"alg": "ES256", "kid": "some"}, {"sub": "some"})
    return ".".join(
        [*(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts), "A"]
    )


def handles_signals(process: Process) -> bool:
    """Whether the process has a handler for SIGTERM."""
    status = Path(f"/proc/{process.started.pid}/status").read_text()
    caught = int(re.findall(r"SigCgt:\s*([0-9a-f]+)", status)[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


async def ends(process: Process, number: int = signal.SIGTERM) -> int:
    """Send the signal, wait for the end, and return the exit status."""
    process.send(number)
    began = time.monotonic()
    async with asyncio.timeout(LATE):
        status = await process.end()
    sys.stderr.write(f"ended after {time.monotonic() - began:.2f} s: {status}\n")
    assert "Traceback" not in process.output
    assert "never retrieved" not in process.output
    return status


async def test_the_api_ends_in_time_while_every_outgoing_connection_hangs(
    nowhere: dict[str, str], session: aiohttp.ClientSession, tmp_path: Path, stack: AsyncExitStack
) -> None:
    settings = {**nowhere, "SHUTDOWN_TIMEOUT": str(SHUTDOWN_TIMEOUT)}
    service = await stack.enter_async_context(Service(tmp_path / "log", session, **settings))
    headers = {"Authorization": f"Bearer {unknown_token()}"}
    asking = asyncio.create_task(session.get(f"{service.url}/portfolios/{PORTFOLIO}/live", headers=headers))
    stack.callback(asking.cancel)
    await asyncio.sleep(0.5)  # the request and the process's own connections are under way
    assert await ends(service) == 0


@pytest.mark.parametrize("kind", ["unread", "closed"])
async def test_an_api_whose_log_cannot_be_written_answers_and_ends_cleanly(
    session: aiohttp.ClientSession, tmp_path: Path, stack: AsyncExitStack, kind: str
) -> None:
    service = Service(tmp_path / "log", session, **elsewhere(free_port()))
    service.outputs["stdout"] = stack.enter_context(output(kind))
    await stack.enter_async_context(service)
    assert await service.get_internal("/background/status")
    assert await ends(service) == 0


@asynccontextmanager
async def working(
    samples_url: str, session: aiohttp.ClientSession, log: Path, stack: AsyncExitStack, **settings: str
) -> AsyncIterator[tuple[Service, Proxy]]:
    """A service that leads, with a proxy between it and the database."""

    async def resigned(_: str) -> None:
        """Do nothing on a resign."""

    port = urlsplit(samples_url).port
    assert port is not None
    sidecar = await stack.enter_async_context(LeadingSidecar(resigned))
    proxy = await stack.enter_async_context(Proxy(port))
    url = samples_url.replace(f":{port}", f":{proxy.port}")
    settings = {"DATABASE_URL": url, "SIDECAR_URL": sidecar.url, "SHUTDOWN_TIMEOUT": str(SHUTDOWN_TIMEOUT), **settings}
    yield await stack.enter_async_context(Service(log, session, **settings)), proxy


async def has_ticked(service: Service) -> bool:
    return (await service.get_internal("/background/status"))["jobs"]["tracker"]["last_run"] is not None


async def test_the_api_ends_in_time_while_the_database_hangs_and_a_stream_is_open(
    samples_url: str, session: aiohttp.ClientSession, tmp_path: Path, stack: AsyncExitStack
) -> None:
    async with working(samples_url, session, tmp_path / "log", stack) as (service, proxy):
        await eventually(lambda: has_ticked(service))
        stream = await session.get(f"{service.url}/portfolios/{PORTFOLIO}/stream")
        stack.callback(stream.close)
        proxy.replies.hold()
        await eventually(lambda: proxy.replies.held)  # a tick or a probe waits for the database
        asking = asyncio.create_task(session.get(f"{service.url}/portfolios/{PORTFOLIO}/live"))
        stack.callback(asking.cancel)
        await ends(service)


async def test_the_api_ends_in_time_while_a_thread_of_its_work_hangs(
    samples_url: str, session: aiohttp.ClientSession, tmp_path: Path, stack: AsyncExitStack
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HANGING_THREAD)
    settings = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    async with working(samples_url, session, tmp_path / "log", stack, **settings) as (service, _):
        await eventually(service.leads)
        await asyncio.sleep(1)  # the first tick is being computed
        await ends(service)


@pytest.mark.parametrize(
    ("command", "number"),
    [(("migrate",), signal.SIGTERM), (("run", "eod"), signal.SIGINT), (("fence", "daily_scheduler"), signal.SIGTERM)],
    ids=["migrate", "run", "fence"],
)
async def test_a_command_ends_in_time_while_every_outgoing_connection_hangs(
    nowhere: dict[str, str], tmp_path: Path, stack: AsyncExitStack, command: tuple[str, ...], number: int
) -> None:
    process = await stack.enter_async_context(command_of("service", tmp_path / "log", *command, **nowhere))
    await eventually(lambda: handles_signals(process), within=LIMIT)
    await asyncio.sleep(0.5)  # the first outgoing connection is under way
    assert await ends(process, number) == 128 + number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_run_by_hand_ends_in_time_while_the_database_hangs(
    samples_url: str, tmp_path: Path, stack: AsyncExitStack, number: int
) -> None:
    port = urlsplit(samples_url).port
    assert port is not None
    proxy = await stack.enter_async_context(Proxy(port))
    settings = {
        "AUTH": "off",
        "PRICE_SOURCE": "simulated",
        "DATABASE_URL": samples_url.replace(f":{port}", f":{proxy.port}"),
    }
    proxy.replies.delay = 0.2
    process = await stack.enter_async_context(command_of("service", tmp_path / "log", "run", "snapshot", **settings))
    await eventually(lambda: proxy.port in connections_of(process), within=LIMIT)
    await asyncio.sleep(0.2)  # a statement is under way
    proxy.replies.hold()
    assert await ends(process, number) == 128 + number


def connections_of(process: Process) -> set[int]:
    """The ports that the process is connected to."""
    there = psutil.Process(process.started.pid).net_connections("tcp")
    return {int(each.raddr[1]) for each in there if each.status == psutil.CONN_ESTABLISHED}


async def test_a_run_by_hand_that_is_stopped_removes_its_protection(
    samples_url: str, tmp_path: Path, stack: AsyncExitStack
) -> None:
    port = urlsplit(samples_url).port
    assert port is not None
    proxy = await stack.enter_async_context(Proxy(port))
    proxy.replies.delay = 0.2
    agent = await stack.enter_async_context(Agent().serving())
    url = samples_url.replace(f":{port}", f":{proxy.port}")
    settings = {"AUTH": "off", "PRICE_SOURCE": "simulated", "DATABASE_URL": url, "ECS_AGENT_URI": agent.uri}
    process = await stack.enter_async_context(command_of("service", tmp_path / "log", "run", "snapshot", **settings))
    await eventually(lambda: agent.protected, within=LIMIT)
    assert await ends(process) == 128 + signal.SIGTERM
    assert not agent.protected


async def test_a_process_ends_although_a_thread_and_the_last_log_lines_hang() -> None:
    program = """
import threading, time
from service.shutdown import exit_after
threading.Thread(target=time.sleep, args=(600,)).start()
exit_after(0.1, lambda: 7, lambda: time.sleep(600))
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, cwd=ROOT)
    async with asyncio.timeout(LATE):
        assert await process.wait() == 7


async def test_a_reader_that_comes_late_gets_the_last_line_of_a_process_that_ends_at_its_limit() -> None:
    program = f"""
import logging, runtime.log_output, service.shutdown, sys, time
from runtime.logs import log_to_stdout
runtime.log_output.END = service.shutdown.REPORT_LIMIT = {LATE}
log_to_stdout("text", "INFO")
shutdown = logging.shutdown
def reported():
    sys.stderr.write("waits\\n")
    shutdown()
logging.shutdown = reported
service.shutdown.exit_after(0.1, lambda: 7, lambda: logging.critical("the limit is over"))
time.sleep(600)
"""
    with full_pipe() as pipe:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, cwd=ROOT, stdout=pipe.writer, stderr=asyncio.subprocess.PIPE
        )
        pipe.close_writer()
        assert process.stderr is not None
        async with asyncio.timeout(LATE):
            await process.stderr.readline()  # the reader comes after the start of the wait, or after the process's end
            assert b"CRITICAL the limit is over\n" in await asyncio.to_thread(pipe.read)
            assert await process.wait() == 7


async def test_a_signal_after_the_end_of_a_command_prints_no_traceback() -> None:
    program = """
import asyncio, os, signal
from service.shutdown import until_stopped
asyncio.run(until_stopped(asyncio.sleep(0)))
os.kill(os.getpid(), signal.SIGTERM)
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(LATE):
        assert (await process.communicate())[1] == b""
    assert process.returncode == 0
