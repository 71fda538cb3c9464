"""No web page of another origin can use the control listener: every route refuses its requests."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from redis import Redis

from ops.local.servers import RedisServer
from tests.support.served_control import KEYS, Served, served

REQUESTS = [
    ("GET", "/is-leader"), ("GET", "/is-leader/tracker"), ("GET", "/is-leader/none"), ("GET", "/leader/tracker"),
    ("HEAD", "/leader/tracker"), ("POST", "/resign/tracker"), ("GET", "/status"), ("GET", "/healthz"),
    ("HEAD", "/healthz"), ("OPTIONS", "/resign/tracker"), ("OPTIONS", "*"), ("PUT", "/status"), ("GET", "/nowhere"),
]  # fmt: skip
FOREIGN = {
    "a rebound name": [b"Host: example.com"],
    "a rebound name that begins with localhost": [b"Host: localhost.example.com"],
    "an address of the network": [b"Host: 10.0.0.7:4040"],
    "all addresses": [b"Host: 0.0.0.0:4040"],
    "no name": [b"Host:"],
    "a user": [b"Host: localhost@example.com"],
    "another user": [b"Host: example.com@localhost"],
    "a page": [b"Host: localhost", b"Origin: https://example.com"],
    "a page of another port": [b"Host: localhost:4040", b"Origin: http://localhost:3000"],
    "a page of another scheme": [b"Host: localhost:4040", b"Origin: https://localhost:4040"],
    "a frame without an origin": [b"Host: localhost", b"Origin: null"],
    "a page that sends two origins": [b"Host: localhost", b"Origin: http://localhost", b"Origin: https://example.com"],
    "a link": [b"Host: localhost", b"Sec-Fetch-Site: cross-site"],
    "a same-site page": [b"Host: localhost", b"Sec-Fetch-Site: same-site"],
    "an unknown site": [b"Host: localhost", b"sec-fetch-site: tomorrow"],
    "two sites": [b"Host: localhost", b"Sec-Fetch-Site: none", b"Sec-Fetch-Site: cross-site"],
}
OURS = {
    "a name": [b"Host: localhost"],
    "a name in capitals": [b"Host: LOCALHOST:4040"],
    "a name with a dot": [b"Host: localhost.:4040"],
    "an address": [b"Host: 127.0.0.1:4040"],
    "another address": [b"Host: 127.1.2.3"],
    "IPv6": [b"Host: [::1]:4040"],
    "IPv4 in IPv6": [b"Host: [::ffff:127.0.0.1]:4040"],
    "an address typed by a person": [b"Host: localhost:4040", b"Sec-Fetch-Site: none"],
    "a same-origin page": [b"Host: LocalHost:4040", b"Origin: http://localhost:4040", b"Sec-Fetch-Site: same-origin"],
}


@pytest.fixture
async def sidecar(redis_server: RedisServer, redis: Redis) -> AsyncIterator[Served]:
    async with served(redis_server) as sidecar:
        yield sidecar


async def answered(sidecar: Served, line: bytes, headers: list[bytes]) -> tuple[int, bytes]:
    """The status and the body of the answer to a raw request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sidecar.url.rpartition(":")[2]))
    writer.write(b"\r\n".join([line, *headers, b"X-Lease-Client: page", b"Connection: close", b"", b""]))
    async with asyncio.timeout(20):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    if body:
        assert b"content-type: application/json" in head.lower()
    return int(head.split(b" ")[1]), body


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
async def test_a_web_page_is_refused_on_every_route(sidecar: Served, redis: Redis, headers: list[bytes]) -> None:
    for method, path in REQUESTS:
        status, body = await answered(sidecar, f"{method} {path} HTTP/1.1".encode(), headers)
        assert status == 403, (method, path, body)
        assert method == "HEAD" or list(json.loads(body)) == ["error"]
        assert len(body) < 300
    assert await sidecar.state() == "waiting"
    token = (await sidecar.lead())["token"]
    assert (await answered(sidecar, b"POST /resign/tracker HTTP/1.1", headers))[0] == 403
    assert (await sidecar.get("/is-leader/tracker"))["token"] == token
    assert redis.get(KEYS["tracker"]) == "a"


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
async def test_a_web_page_is_refused_on_the_fast_path(sidecar: Served, headers: list[bytes]) -> None:
    """The fast path bypasses the application, which refuses web pages, so the fast path must check the headers too."""
    await sidecar.lead()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sidecar.url.rpartition(":")[2]))
    for path in (b"/is-leader/tracker", b"/is-leader"):
        writer.write(b"\r\n".join([b"GET %b HTTP/1.1" % path, *headers, b"", b""]))
        async with asyncio.timeout(20):
            assert (await reader.readline()).startswith(b"HTTP/1.1 403 ")
            await reader.readuntil(b"}")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("headers", OURS.values(), ids=OURS)
async def test_a_program_of_the_task_is_answered_on_every_route(sidecar: Served, headers: list[bytes]) -> None:
    statuses = [
        (await answered(sidecar, f"{method} {path} HTTP/1.1".encode(), headers))[0] for method, path in REQUESTS
    ]
    assert 403 not in statuses
    assert 200 in statuses


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET http://example.com/status HTTP/1.1", 403),
        (b"GET http://localhost:4040/status HTTP/1.1", 200),
        (b"GET http://[::1]:4040/status HTTP/1.1", 200),
        (b"POST http://example.com/resign/tracker HTTP/1.1", 403),
        (b"CONNECT example.com:443 HTTP/1.1", 403),
    ],
)
async def test_a_request_target_with_a_host_that_is_not_loopback_is_refused(
    sidecar: Served, line: bytes, status: int
) -> None:
    assert (await answered(sidecar, line, [b"Host: localhost:4040"]))[0] == status


async def test_a_probe_may_omit_the_host_header_but_a_resign_may_not(sidecar: Served) -> None:
    assert (await answered(sidecar, b"GET /healthz HTTP/1.0", []))[0] == 200
    assert (await answered(sidecar, b"GET /is-leader/tracker HTTP/1.0", []))[0] == 200
    assert (await answered(sidecar, b"GET /healthz HTTP/1.0", [b"Origin: http://localhost"]))[0] == 403
    assert (await answered(sidecar, b"POST /resign/tracker HTTP/1.0", []))[0] == 403
