"""The listener of both containers: limits of a peer's connections, and errors in JSON."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import pytest
import uvloop
from aiohttp import web

from runtime.listener import Limits, network_of
from tests.support.listening import listening
from tests.support.waiting import eventually

WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HALF = b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "
HERE, THERE = "127.0.0.1", "127.0.0.2"
LARGE = 64 * 1024 * 1024
"""Length of an answer that no buffer can hold, in bytes."""


class Connection:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self) -> int:
        """The status of the next answer, whose body is read too."""
        async with asyncio.timeout(20):
            head = await self.reader.readuntil(b"\r\n\r\n")
            (length,) = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
            await self.reader.readexactly(int(length.split(b":")[1]))
        return int(head.split(b" ")[1])

    async def is_closed(self) -> bool:
        """Wait until the connection is closed; false if an answer comes first."""
        async with asyncio.timeout(20):
            with suppress(ConnectionError):
                if await self.reader.read(1):
                    return False
        self.close()
        return True

    async def refused(self) -> bool:
        """Whether the connection is closed without an answer."""
        self.send(WHOLE)
        return await self.is_closed()

    def close(self) -> None:
        self._writer.close()


@dataclass
class Served:
    """A listener, and connections to it."""

    runner: web.AppRunner
    held: asyncio.Event
    """The event that ends the requests to /held."""

    async def connect(self, source: str = HERE) -> Connection:
        host, port = self.runner.addresses[0]
        return Connection(*await asyncio.open_connection(host, port, local_addr=(source, 0)))

    async def passes_limit(self) -> None:
        """Wait until a header that begins now is cut off. Headers that began before are cut off by then too."""
        cut = await self.connect()
        cut.send(HALF)
        assert await cut.is_closed()

    @property
    def open(self) -> int:
        assert self.runner.server is not None
        return len(self.runner.server.connections)


@asynccontextmanager
async def serving(limits: Limits) -> AsyncIterator[Served]:
    async def root(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def wait(_: web.Request) -> web.Response:
        await held.wait()
        return web.Response(body=b"held")

    async def large(_: web.Request) -> web.Response:
        return web.Response(body=bytes(LARGE))

    held = asyncio.Event()
    app = web.Application()
    app.add_routes([web.get("/", root), web.post("/", root), web.get("/held", wait), web.get("/large", large)])
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.2)
    async with listening(runner, limits):
        yield Served(runner, held)


async def drip(connection: Connection) -> None:
    while True:
        connection.send(b"x")
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("before", [b"", WHOLE], ids=["first", "after a request"])
async def test_a_header_that_drips_in_is_cut_off(before: bytes) -> None:
    async with serving(Limits(header=0.5)) as served:
        slow = await served.connect()
        slow.send(before)
        if before:
            assert await slow.answer() == 200
        slow.send(HALF)
        dripping = asyncio.create_task(drip(slow))
        assert await slow.is_closed()
        dripping.cancel()
        await eventually(lambda: not served.open)


async def test_half_a_header_behind_a_whole_one_is_cut_off() -> None:
    async with serving(Limits(header=0.5)) as served:
        slow = await served.connect()
        slow.send(WHOLE + WHOLE + HALF)
        assert [await slow.answer(), await slow.answer()] == [200, 200]
        assert await slow.is_closed()


async def test_a_connection_without_a_header_under_way_outlives_the_limit_of_a_header() -> None:
    async with serving(Limits(header=0.2)) as served:
        silent, split, body = [await served.connect() for _ in range(3)]
        split.send(WHOLE[:-2])
        await asyncio.sleep(0.05)
        split.send(WHOLE[-2:])
        assert await split.answer() == 200
        body.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
        await served.passes_limit()
        body.send(b"cd")
        assert await body.answer() == 200
        await served.passes_limit()
        for connection in (silent, split, body):
            connection.send(WHOLE)
            assert await connection.answer() == 200
            connection.close()


async def test_a_request_that_is_held_is_answered_whatever_half_a_header_is_behind_it() -> None:
    async with serving(Limits(header=0.2)) as served:
        connection = await served.connect()
        connection.send(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n" + HALF)
        await served.passes_limit()
        served.held.set()
        assert await connection.answer() == 200
        assert await connection.is_closed()


async def test_a_peer_has_a_limit_of_connections_that_leaves_others_to_other_peers() -> None:
    async with serving(Limits(connections=5, per_peer=3)) as served:
        theirs = [await served.connect(THERE) for _ in range(3)]
        await eventually(lambda: served.open == 3)
        assert await (await served.connect(THERE)).refused()
        ours = [await served.connect() for _ in range(2)]
        for connection in ours:
            connection.send(WHOLE)
            assert await connection.answer() == 200
        assert await (await served.connect()).refused()  # refused by the total limit
        theirs.pop().close()
        await eventually(lambda: served.open == 4)
        another = await served.connect(THERE)
        another.send(WHOLE)
        assert await another.answer() == 200
        for connection in (*theirs, *ours, another):
            connection.close()


async def test_garbage_ends_its_connection_alone() -> None:
    async with serving(Limits(per_peer=1, header=0.2)) as served:
        garbage = await served.connect(THERE)
        garbage.send(b"\x00\xff garbage\r\n\r\n" * 1000 + WHOLE)
        assert await garbage.answer() == 400
        assert await garbage.is_closed()
        ours = await served.connect()
        ours.send(WHOLE)
        assert await ours.answer() == 200
        ours.close()


async def test_a_peer_that_does_not_read_its_answer_is_cut_off() -> None:
    async with serving(Limits(idle=1.0)) as served:
        with socket.create_connection(served.runner.addresses[0][:2]) as unread:
            unread.sendall(WHOLE.replace(b"/ ", b"/large ", 1))
            await eventually(lambda: served.open)
            await eventually(lambda: not served.open)


@pytest.mark.parametrize(
    "law",
    [
        test_half_a_header_behind_a_whole_one_is_cut_off,
        test_a_connection_without_a_header_under_way_outlives_the_limit_of_a_header,
        test_a_peer_has_a_limit_of_connections_that_leaves_others_to_other_peers,
        test_garbage_ends_its_connection_alone,
        test_a_peer_that_does_not_read_its_answer_is_cut_off,
    ],
)
def test_the_limits_hold_with_uvloop_too(law: Callable[[], Coroutine[None, None, None]]) -> None:
    """The containers use uvloop, whose transports differ from those of asyncio's own loop."""
    uvloop.run(law())


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
    ],
)
def test_a_peer_is_an_ipv4_address_or_a_network_of_ipv6(host: str, network: str) -> None:
    assert network_of(host) == network


@pytest.mark.parametrize(
    ("sent", "status", "error"),
    [
        (b"nonsense\r\n\r\n", 400, "malformed HTTP: "),
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404, "Not Found: GET /nowhere"),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405, "Method Not Allowed: PUT /"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\n\r\n", 417, "Unknown Expect: miracles"),
    ],
)
async def test_an_error_of_the_servers_own_is_json(sent: bytes, status: int, error: str) -> None:
    async with serving(Limits()) as served:
        connection = await served.connect()
        connection.send(sent)
        async with asyncio.timeout(20):
            head = await connection.reader.readuntil(b"\r\n\r\n")
            body = await connection.reader.readuntil(b"}")
        assert head.split(b" ")[1] == str(status).encode()
        assert b"content-type: application/json" in head.lower()
        assert (b"allow: get,head,post" in head.lower()) == (status == 405)
        assert json.loads(body)["error"].startswith(error)
        connection.close()
