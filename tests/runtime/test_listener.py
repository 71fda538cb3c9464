"""The listener of both containers: limits of connections, answers on the fast path (`at_once`), and errors in JSON."""

import asyncio
import json
import re
import select
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import pytest
import uvloop
from aiohttp import web
from aiohttp.http import RawRequestMessage

from runtime.listener import AtOnce, Limits, network_of
from tests.support.listening import listening
from tests.support.waiting import eventually

WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HALF = b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "
HERE, THERE = "127.0.0.1", "127.0.0.2"
LARGE = 64 * 1024 * 1024
"""Length in bytes of an answer that does not fit into the buffers of a connection."""
AT_ONCE = b'{"at": "once"}'
LATE = b'{"at": "last"}'
"""The application's answer to a request that the fast path can also answer."""
WHOLE_AT_ONCE = b"GET /at-once HTTP/1.1\r\nHost: x\r\n\r\n"


class Connection:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self) -> int:
        """Read the next answer; return its status."""
        head, _ = await self.whole_answer()
        return int(head.split(b" ")[1])

    async def body(self) -> bytes:
        """The body of the next answer."""
        return (await self.whole_answer())[1]

    async def whole_answer(self) -> tuple[bytes, bytes]:
        """The head and the body of the next answer."""
        async with asyncio.timeout(20):
            head = await self.reader.readuntil(b"\r\n\r\n")
            (length,) = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
            return head, await self.reader.readexactly(int(length.split(b":")[1]))

    async def is_closed(self) -> bool:
        """Wait until the connection is closed; false if an answer comes first."""
        async with asyncio.timeout(20):
            with suppress(ConnectionError):
                if await self.reader.read(1):
                    return False
        self.close()
        return True

    async def refused(self) -> bool:
        """Send a request; true if the connection is closed without an answer."""
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
        """Wait until a new connection with an incomplete header is closed.

        Incomplete headers that were sent earlier have then reached the limit too.
        """
        cut = await self.connect()
        cut.send(HALF)
        assert await cut.is_closed()

    @property
    def requests(self) -> int:
        """The number of requests that the application has answered or is answering."""
        assert self.runner.server is not None
        return self.runner.server.requests_count

    @property
    def open(self) -> int:
        assert self.runner.server is not None
        return len(self.runner.server.connections)


@asynccontextmanager
async def serving(limits: Limits, at_once: AtOnce | None = None) -> AsyncIterator[Served]:
    async def root(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def late(_: web.Request) -> web.Response:
        return web.Response(body=LATE, content_type="application/json")

    async def wait(_: web.Request) -> web.Response:
        await held.wait()
        return web.Response(body=b"held")

    async def large(_: web.Request) -> web.Response:
        return web.Response(body=bytes(LARGE))

    held = asyncio.Event()
    app = web.Application()
    app.add_routes([web.get("/", root), web.post("/", root), web.get("/held", wait), web.get("/large", large)])
    app.add_routes([web.get("/at-once", late), web.post("/at-once", late)])
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.2)
    async with listening(runner, limits, at_once):
        yield Served(runner, held)


def at_once(message: RawRequestMessage) -> bytes | None:
    """Answer `GET /at-once`."""
    return AT_ONCE if (message.method, message.path) == ("GET", "/at-once") else None


def fails(_: RawRequestMessage) -> bytes | None:
    raise RuntimeError("a bug")


async def drip(connection: Connection) -> None:
    while True:
        connection.send(b"x")
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("before", [b"", WHOLE], ids=["first", "after a request"])
async def test_a_slow_header_closes_the_connection(before: bytes) -> None:
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


async def test_an_incomplete_header_after_a_complete_request_closes_the_connection() -> None:
    async with serving(Limits(header=0.5)) as served:
        slow = await served.connect()
        slow.send(WHOLE + WHOLE + HALF)
        assert [await slow.answer(), await slow.answer()] == [200, 200]
        assert await slow.is_closed()


async def test_an_idle_connection_outlives_the_header_limit() -> None:
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


async def test_a_held_request_is_answered_even_if_an_incomplete_header_follows() -> None:
    async with serving(Limits(header=0.2)) as served:
        connection = await served.connect()
        connection.send(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n" + HALF)
        await served.passes_limit()
        served.held.set()
        assert await connection.answer() == 200
        assert await connection.is_closed()


async def test_a_connection_limit_per_peer_leaves_connections_for_other_peers() -> None:
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


async def test_the_limit_on_connections_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Limits(connections=1, per_peer=1)) as served:
        only = await served.connect(THERE)
        await eventually(lambda: served.open == 1)
        for _ in range(3):
            assert await (await served.connect()).refused()
        said = [record.getMessage() for record in caplog.records if record.name == "runtime.listener"]
        assert [each.partition(": ")[2] for each in said] == [
            "1 connections are open, which is the limit; others are closed"
        ]
        only.close()


async def test_invalid_bytes_close_only_their_connection() -> None:
    async with serving(Limits(per_peer=1, header=0.2)) as served:
        garbage = await served.connect(THERE)
        garbage.send(b"\x00\xff garbage\r\n\r\n" * 1000 + WHOLE)
        assert await garbage.answer() == 400
        assert await garbage.is_closed()
        ours = await served.connect()
        ours.send(WHOLE)
        assert await ours.answer() == 200
        ours.close()


async def test_a_peer_that_does_not_read_its_answer_is_disconnected() -> None:
    async with serving(Limits(idle=1.0)) as served:
        with socket.create_connection(served.runner.addresses[0][:2]) as unread:
            unread.sendall(WHOLE.replace(b"/ ", b"/large ", 1))
            await eventually(lambda: served.open)
            await eventually(lambda: not served.open)


@pytest.mark.parametrize(
    "law",
    [
        test_an_incomplete_header_after_a_complete_request_closes_the_connection,
        test_an_idle_connection_outlives_the_header_limit,
        test_a_connection_limit_per_peer_leaves_connections_for_other_peers,
        test_invalid_bytes_close_only_their_connection,
        test_a_peer_that_does_not_read_its_answer_is_disconnected,
    ],
)
def test_the_limits_also_hold_with_uvloop(law: Callable[[], Coroutine[None, None, None]]) -> None:
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
def test_a_peer_is_an_ipv4_address_or_an_ipv6_network(host: str, network: str) -> None:
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
async def test_a_built_in_error_response_is_json(sent: bytes, status: int, error: str) -> None:
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


async def test_a_fast_path_answer_has_the_headers_of_the_application() -> None:
    heads = []
    for answers in (at_once, None):
        async with serving(Limits(), answers) as served:
            connection = await served.connect()
            for _ in range(2):
                connection.send(WHOLE_AT_ONCE)
                heads.append(re.sub(rb"Date: [^\r]*", b"Date", (await connection.whole_answer())[0]))
            assert served.requests == (2 if answers is None else 0)
            connection.close()
    assert len(set(heads)) == 1


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        pytest.param(WHOLE_AT_ONCE.replace(b"1.1", b"1.0"), at_once, id="1.0"),
        pytest.param(WHOLE_AT_ONCE.replace(b"Host", b"Connection: close\r\nHost"), at_once, id="close"),
        pytest.param(WHOLE_AT_ONCE.replace(b"Host", b"Content-Length: 1\r\nHost") + b"x", at_once, id="body"),
        pytest.param(WHOLE_AT_ONCE.replace(b"GET", b"POST"), at_once, id="another method"),
        pytest.param(WHOLE_AT_ONCE, fails, id="error"),
    ],
)
async def test_the_application_answers_requests_that_the_fast_path_leaves(sent: bytes, answers: AtOnce) -> None:
    async with serving(Limits(), answers) as served:
        connection = await served.connect()
        connection.send(sent)
        assert await connection.body() == LATE
        if b"close" in sent or b"1.0" in sent:
            assert await connection.is_closed()
        connection.close()


async def test_a_fast_path_answer_waits_for_earlier_answers() -> None:
    async with serving(Limits(), at_once) as served:
        connection = await served.connect()
        connection.send(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually(lambda: served.requests == 1)
        connection.send(WHOLE_AT_ONCE)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await connection.reader.readexactly(1)
        served.held.set()
        assert [await connection.body(), await connection.body()] == [b"held", LATE]
        connection.send(WHOLE_AT_ONCE * 2)
        assert [await connection.body(), await connection.body()] == [LATE, LATE]
        connection.send(WHOLE_AT_ONCE)
        assert await connection.body() == AT_ONCE
        connection.close()


async def test_the_number_of_fast_path_answers_is_not_limited() -> None:
    """The parser counts the requests that wait for an answer, and stops at a limit.

    Requests that the fast path answers must not count.
    """
    async with serving(Limits(), at_once) as served:
        connection = await served.connect()
        for _ in range(300):
            connection.send(WHOLE_AT_ONCE)
            assert await connection.body() == AT_ONCE
        connection.send(WHOLE_AT_ONCE * 2)
        assert [await connection.body(), await connection.body()] == [LATE, LATE]
        connection.close()


async def test_a_peer_that_does_not_read_gets_no_fast_path_answers() -> None:
    """The application waits until the peer reads; fast-path answers would accumulate in memory."""
    async with serving(Limits(), lambda message: bytes(LARGE) if at_once(message) else None) as served:
        with socket.create_connection(served.runner.addresses[0][:2]) as unread:
            unread.sendall(WHOLE_AT_ONCE)
            await eventually(lambda: select.select([unread], [], [], 0)[0])
            unread.sendall(WHOLE_AT_ONCE)
            await eventually(lambda: served.requests == 1)


async def test_a_connection_with_fast_path_answers_is_not_idle() -> None:
    async with serving(Limits(idle=2.0), at_once) as served:
        connection = await served.connect()
        async with asyncio.timeout(30):
            until = asyncio.get_running_loop().time() + 2.5
            while asyncio.get_running_loop().time() < until:
                connection.send(WHOLE_AT_ONCE)
                assert await connection.body() == AT_ONCE
                await asyncio.sleep(0.01)
        connection.close()


async def test_a_fast_path_answer_stops_the_header_timer() -> None:
    async with serving(Limits(header=0.2), at_once) as served:
        connection = await served.connect()
        connection.send(WHOLE_AT_ONCE[:10])
        await asyncio.sleep(0.01)  # the rest of the header comes later
        connection.send(WHOLE_AT_ONCE[10:])
        assert await connection.body() == AT_ONCE
        await served.passes_limit()
        connection.send(WHOLE_AT_ONCE)
        assert await connection.body() == AT_ONCE
        connection.close()
