"""Limits of connections (headers that do not end, too many connections), and the answers to malformed HTTP."""

import asyncio
import json
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import aiohttp
import pytest
from aiohttp import ClientSession

from ops.local.servers import free_port
from runtime.addresses import Address
from runtime.health_check import is_healthy, status_line
from runtime.listener import Limits, Listener
from service.api import limits
from service.api.listener import connection_limits, max_connections, max_streams
from service.telemetry import set_up_logs
from tests.support.listening import leave_before_the_continue
from tests.support.outputs import flush_log
from tests.support.served_api import PORTFOLIO, Served
from tests.support.waiting import eventually

HALF = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "


@pytest.fixture
async def limited(served: Served) -> AsyncIterator[Served]:
    """The API with a limit of two connections."""
    site = {"address": Address("127.0.0.1", free_port()), "limits": Limits(connections=2)}
    other = Served(served.store, served.session)
    probing = asyncio.create_task(other.access.run())
    await other.access.connected()
    async with other.listening(Listener, **site):
        yield other
    probing.cancel()
    await asyncio.wait((probing,))


async def connect(served: Served) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = served.url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


async def is_closed(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(20):
        return await reader.read() == b""


@pytest.mark.parametrize("before", [b"", HALF, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + HALF])
async def test_a_connection_without_a_whole_header_is_closed_in_time_and_a_stream_is_not(
    before: bytes, served: Served, session: ClientSession
) -> None:
    reading = asyncio.create_task(served.streams.run(served.store))
    async with (
        served.listening(Listener, address=Address("127.0.0.1", 0), limits=Limits(idle=2.0)),
        session.get(f"{served.url}/portfolios/{PORTFOLIO}/stream") as stream,
    ):
        reader, writer = await connect(served)
        writer.write(before)

        async def drip() -> None:
            while before:
                writer.write(b"x")
                await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        answers = 0
        async with asyncio.timeout(20):
            with suppress(ConnectionError):  # bytes that arrive after the close cause a reset
                while line := await reader.readline():
                    answers += line.startswith(b"HTTP/1.1 200")
        assert answers == before.count(b"\r\n\r\n")
        await served.write_live("7")
        async with asyncio.timeout(20):
            while b"data: " not in await stream.content.readline():
                assert not stream.content.at_eof()
        writer.close()
        for task in (dripping, reading):
            task.cancel()
        await asyncio.wait((dripping, reading))


async def test_a_connection_beyond_the_limit_is_closed_at_once(limited: Served) -> None:
    (one, writer), (two, other) = [await connect(limited) for _ in range(2)]
    for line in (writer, other):
        line.write(HALF)  # both connections are accepted, but neither has sent a whole request
    await eventually(lambda: limited.serving.server and len(limited.serving.server.connections) == 2)
    third, closing = await connect(limited)
    assert await is_closed(third)
    closing.close()
    assert not one.at_eof()
    assert not two.at_eof()
    writer.close()

    async def answers() -> bool:
        try:
            return (await limited.get("/healthz"))[0] == 200
        except aiohttp.ClientError:
            return False  # the closed connection still counts

    await eventually(answers)
    other.close()


async def test_a_task_with_too_many_streams_passes_its_health_check_and_answers_requests(
    served: Served, session: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8, 8))
    assert max_streams() < max_connections() == 4
    served.admission._most = max_streams()
    path = f"/portfolios/{PORTFOLIO}/stream"
    reading = asyncio.create_task(served.streams.run(served.store))
    async with (
        served.listening(Listener, address=Address("127.0.0.1", 0), limits=connection_limits()),
        AsyncExitStack() as streams,
    ):
        for _ in range(max_streams()):
            assert (await streams.enter_async_context(session.get(served.url + path))).status == 200
        assert (await served.get(path, headers={"Connection": "close"}))[0] == 503
        await eventually(lambda: served.serving.server and len(served.serving.server.connections) == max_streams())
        host, port = served.url.removeprefix("http://").split(":")
        assert is_healthy(await asyncio.to_thread(status_line, host, int(port), 20.0))
        await eventually(lambda: served.serving.server and len(served.serving.server.connections) == max_streams())
        assert (await served.get(f"/portfolios/{PORTFOLIO}/live"))[0] == 404
    reading.cancel()
    await asyncio.wait((reading,))


@pytest.mark.parametrize("files", [128, 300, 1024, 1_000_000])
def test_streams_leave_connections_for_short_requests_and_health_checks(
    files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    connections = connection_limits().connections
    assert connections == max_connections()
    assert connections / 20 < connections - max_streams() < connections / 5


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Type: a/b\r\nContent-Type: a/b\r\n\r\n", "Content-Type"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 9000 + b"\r\n\r\n", "more than 8190 bytes"),
        (b"FETCH /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "method"),
        (b"GET http://x:y/ HTTP/1.1\r\nHost: x\r\n\r\n", "http://x:y/"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", "HTTPS"),
    ],
    ids=["a header twice", "a long header", "a method", "a port", "TLS"],
)
async def test_malformed_http_is_400_in_json_and_the_connection_is_closed(
    sent: bytes, expected: str, served: Served
) -> None:
    reader, writer = await connect(served)
    writer.write(sent)
    async with asyncio.timeout(20):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert head.split(b" ")[1] == b"400"
    assert b"Content-Type: application/json" in head
    error = json.loads(body)["error"]
    assert error.startswith("malformed HTTP: ")
    assert expected in error
    assert "\n" not in error


async def test_clients_that_leave_before_100_continue_cause_no_log_line(
    served: Served, logging_as_it_was: None, capfd: pytest.CaptureFixture[str]
) -> None:
    set_up_logs("text", "warning")
    for url, get in ((served.url, served.get), (served.internal_url, served.get_internal)):
        await leave_before_the_continue(url)
        assert (await get("/healthz"))[0] == 200
    flush_log()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("path", ["/healthz", "/nowhere"])
async def test_an_unknown_expectation_is_417_in_json(path: str, served: Served) -> None:
    assert await served.get(path, headers={"Expect": "miracles"}) == (417, {"error": "Unknown Expect: miracles"})


@pytest.mark.parametrize(
    ("files", "most"),
    [(1024, 960), (100, 50), (1_000_000, limits.MAX_CONNECTIONS), (resource.RLIM_INFINITY, limits.MAX_CONNECTIONS)],
)
def test_the_connection_limit_leaves_descriptors_to_the_rest_of_the_process(
    files: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert max_connections() == most
