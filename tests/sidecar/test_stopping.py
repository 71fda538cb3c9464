"""SIGTERM while a lookup, a connection or a server hangs: the process ends in time and prints no traceback."""

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest
from redis import Redis

from ops.local.servers import RedisServer
from tests.sidecar.test_process import SMALL, Asker, key
from tests.support.outputs import empty_pipe, output
from tests.support.processes import RealSidecar, killed_at_exit
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

BOUND = 0.6 + 3 * 0.7 + 1.0
"""Seconds within which the process must end: GRANT_TTL + 3 * REDIS_TIMEOUT of `SMALL`, and one more second."""
BUSY = 15.0
"""Seconds that a busy machine may add; much less than the 300 s for which a lookup hangs in these tests."""

HANGING_LOOKUPS = """
import socket, sys, time
numeric = socket.getaddrinfo

def hangs(host, *arguments, **options):
    if host != "hangs.test" or options.get("flags", 0) & socket.AI_NUMERICHOST:
        return numeric(host, *arguments, **options)
    print("a lookup hangs", flush=True)
    time.sleep(300)

socket.getaddrinfo = hangs
from sidecar.__main__ import main
sys.exit(main([]))
"""


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def sidecar(folder: Path, server: RedisServer, **environment: str) -> RealSidecar:
    made = RealSidecar(folder, server, "task-a")
    made.environment |= SMALL | environment
    return made


async def ends_in_time(sidecar: RealSidecar) -> None:
    began = time.monotonic()
    sidecar.send(signal.SIGTERM)
    assert await asyncio.to_thread(sidecar.wait) == 0
    assert time.monotonic() - began < BOUND + BUSY
    for word in ("Traceback", "never retrieved", "Task was destroyed"):
        assert word not in sidecar.output, sidecar.output


async def test_sigterm_ends_the_sidecar_while_lookups_hang(
    redis_server: RedisServer, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    hanging = sidecar(tmp_path, redis_server, REDIS_URL="", REDIS_HOST="hangs.test")
    hanging._arguments = ["-c", HANGING_LOOKUPS]
    with killed_at_exit(hanging):
        hanging.start()
        asker = Asker(hanging, session)
        await eventually(asker.ask)
        await eventually(lambda: "the lookup of the name hangs.test gave no result in time" in hanging.output)
        assert (await asker.status())["trouble"] == "timeout: the lookup of the name hangs.test gave no result in time"
        assert hanging.output.count("a lookup hangs") == 1, "abandoned lookups accumulate"
        await ends_in_time(hanging)


async def test_sigterm_ends_the_sidecar_while_the_lookup_of_the_metadata_endpoint_hangs(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    hanging = sidecar(
        tmp_path, redis_server, INSTANCE_ID="", ECS_CONTAINER_METADATA_URI_V4="http://hangs.test/v4/container"
    )
    hanging._arguments = ["-c", HANGING_LOOKUPS]
    with killed_at_exit(hanging):
        hanging.start()
        await eventually(lambda: "a lookup hangs" in hanging.output)
        await ends_in_time(hanging)


async def test_sigterm_ends_the_sidecar_while_the_metadata_endpoint_hangs(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}/v4/container"
        hanging = sidecar(tmp_path, redis_server, INSTANCE_ID="", ECS_CONTAINER_METADATA_URI_V4=uri)
        with killed_at_exit(hanging):
            hanging.start()
            connected, _ = await asyncio.to_thread(silent.accept)
            await ends_in_time(hanging)
            connected.close()


async def test_sigterm_ends_the_sidecar_while_connecting_hangs(
    redis_server: RedisServer, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    with ExitStack() as opened, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)  # the kernel drops new connections once the queue is full
        for _ in range(4):
            filler = opened.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        hanging = sidecar(tmp_path, redis_server, REDIS_URL=f"redis://127.0.0.1:{listener.getsockname()[1]}")
        with killed_at_exit(hanging):
            hanging.start()
            asker = Asker(hanging, session)
            await eventually(asker.ask)
            await eventually(lambda: "no answer in time" in hanging.output)
            await ends_in_time(hanging)


@pytest.mark.parametrize("leads", [True, False])
async def test_sigterm_ends_the_sidecar_while_redis_does_not_answer(
    redis_server: RedisServer, tmp_path: Path, session: aiohttp.ClientSession, leads: bool
) -> None:
    async with Proxy(redis_server.port) as proxy:
        hanging = sidecar(tmp_path, redis_server, REDIS_URL=f"redis://127.0.0.1:{proxy.port}", LEASE_TTL="30")
        with killed_at_exit(hanging):
            hanging.start()
            asker = Asker(hanging, session)
            await eventually(asker.status)
            if leads:
                await eventually(lambda: _leads(asker))
            proxy.black_hole()
            if not leads:
                await eventually(asker.ask)
            await ends_in_time(hanging)
            if leads:
                kept = "without an answer of Redis about background_services: the key may remain for up to 30 s"
                assert kept in hanging.output
                assert "has given up its leases" not in hanging.output


@pytest.mark.parametrize("kind", ["unread", "closed", "full disk"])
async def test_a_sidecar_whose_log_cannot_be_written_leads_and_ends_cleanly(
    redis: Redis, redis_server: RedisServer, tmp_path: Path, session: aiohttp.ClientSession, kind: str
) -> None:
    logging = sidecar(tmp_path, redis_server, LEASE_TTL="30")
    with output(kind) as descriptor, killed_at_exit(logging):
        logging.outputs["stdout"] = descriptor
        logging.start()
        asker = Asker(logging, session)
        await eventually(lambda: _leads(asker))
        assert redis.exists(key(asker))
        await ends_in_time(logging)
    assert not redis.exists(key(asker))
    assert logging.output.count("\n") == (0 if kind == "unread" else 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_further_signals_do_not_end_a_sidecar_that_waits_for_the_reader_of_its_log(
    redis_server: RedisServer, tmp_path: Path, session: aiohttp.ClientSession, number: signal.Signals
) -> None:
    logging = sidecar(tmp_path, redis_server, LEASE_TTL="30")
    with empty_pipe() as pipe, killed_at_exit(logging):
        logging.outputs["stdout"] = pipe.writer
        logging.start()
        asker = Asker(logging, session)
        await eventually(lambda: _leads(asker))
        pipe.fill()
        while logging.is_running:
            logging.send(number)
            await asyncio.sleep(0.005)
        assert logging.wait() == 0


async def _leads(asker: Asker) -> bool:
    return bool((await asker.ask())["is_leader"])
