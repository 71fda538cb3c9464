"""Pages of other origins: which may use the public listener, and which answers they can read."""

import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.typedefs import LooseHeaders

from service.api import limits
from service.api.cors import Cors
from service.api.jwks import KeysUnavailable
from service.api.limits import MAX_BODY
from service.api.listener import connection_limits, runner
from service.database.connection import StoreError
from tests.service.api.test_owner import UNKNOWN, bearer, guarded
from tests.support.listening import listening
from tests.support.processes import Service
from tests.support.served_api import PORTFOLIO, Served

__all__ = ["guarded"]

ORIGIN = "https://app.example.com"
OTHER = "http://localhost:5173"
FROM_PAGE = {"Origin": ORIGIN}
MINE = f"/portfolios/{PORTFOLIO}"
STRANGERS = (
    "null",
    "",
    "*",
    "http://app.example.com",
    "https://app.example.com:8443",
    "https://app.example.com/",
    "https://APP.example.com",
    "https://app.example.com.evil.example",
    "https://evil-app.example.com",
    "https://example.com",
    "https://app.example.com https://evil.example",
)
JSON_BODY = {"Content-Type": "application/json"}


@pytest.fixture
async def pages(guarded: Served) -> AsyncIterator[Served]:
    """The API with access tokens, for pages of two origins."""
    guarded.api._cors = Cors(frozenset({ORIGIN, OTHER}))
    async with listening(runner(guarded.api.application(), shutdown_timeout=1), connection_limits()) as guarded.url:
        yield guarded


async def answer_to(
    served: Served, method: str, path: str, headers: LooseHeaders | None = None, **more: Any
) -> ClientResponse:
    async with served.session.request(method, served.url + path, headers=headers, **more) as response:
        await response.read()
        return response


def is_readable(response: ClientResponse, origin: str = ORIGIN) -> bool:
    """Return true if a browser lets a page of the origin read the answer, and a cache gives it to no other origin."""
    return (response.headers.getall("Access-Control-Allow-Origin", []), response.headers.getall("Vary", [])) == (
        [origin],
        ["Origin"],
    )


@pytest.mark.parametrize("origin", [ORIGIN, OTHER])
async def test_a_page_of_each_origin_reads_values(origin: str, pages: Served) -> None:
    response = await answer_to(pages, "GET", f"{MINE}/live", {"Origin": origin, **bearer()})
    assert response.status == 200
    assert is_readable(response, origin)
    assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/healthz", {}, 200),
        ("HEAD", "/healthz", {}, 200),
        ("GET", "/openapi.json", {}, 200),
        ("GET", "/nowhere", {}, 404),
        ("GET", "/", {}, 404),
        ("GET", "/%2e%2e/metrics", {}, 404),
        ("PUT", "/nowhere", {}, 404),
        ("DELETE", f"{MINE}/live", {}, 405),
        ("HEAD", f"{MINE}/stream", bearer(), 405),
        ("GET", f"{MINE}/live", {}, 401),
        ("GET", f"{MINE}/stream", {}, 401),
        ("GET", f"{MINE}/live", {"Authorization": "Basic abc"}, 401),
        ("PUT", f"{MINE}/positions", {}, 401),
        ("GET", f"/portfolios/{UNKNOWN}/live", bearer(), 404),
        ("GET", f"/portfolios/{UNKNOWN}/stream", bearer(), 404),
        ("GET", f"{MINE}/history?limit=x", bearer(), 400),
        ("PUT", f"{MINE}/positions", bearer(), 415),
        ("PUT", f"{MINE}/positions", {**bearer(), **JSON_BODY, "Content-Length": str(MAX_BODY + 1)}, 413),
        ("GET", f"{MINE}/live", {**bearer(), "Expect": "wonders"}, 417),
    ],
)
async def test_a_page_can_read_every_answer_errors_included(
    method: str, path: str, headers: dict[str, str], status: int, pages: Served
) -> None:
    body = b" " * (MAX_BODY + 1) if status == 413 else None
    response = await answer_to(pages, method, path, {**FROM_PAGE, **headers}, data=body)
    assert response.status == status
    assert is_readable(response)
    exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
    assert {name for name in ("Allow", "Retry-After", "WWW-Authenticate") if name in response.headers} <= set(exposed)


@pytest.mark.parametrize(
    ("error", "status"),
    [(StoreError("down"), 503), (KeysUnavailable("down"), 503), (ZeroDivisionError(), 500), (TimeoutError(), 500)],
)
async def test_a_page_can_read_a_server_error(
    error: Exception, status: int, pages: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(pages.store, "owner", fail)
    for view in ("live", "stream"):
        response = await answer_to(pages, "GET", f"{MINE}/{view}", {**FROM_PAGE, **bearer()})
        assert response.status == status
        assert is_readable(response)


async def test_a_page_can_read_the_answer_of_a_stopping_task(pages: Served) -> None:
    pages.health.draining = True
    response = await answer_to(pages, "GET", "/healthz", FROM_PAGE)
    assert response.status == 503
    assert is_readable(response)


async def test_a_page_can_read_a_stream_and_the_refusal_of_one_too_many(
    pages: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages.api._quota = limits.StreamQuota(1)
    async with pages.session.get(f"{pages.url}{MINE}/stream", headers={**FROM_PAGE, **bearer()}) as stream:
        assert stream.status == 200
        assert is_readable(stream)
        refused = await answer_to(pages, "GET", f"{MINE}/stream", {**FROM_PAGE, **bearer()})
        assert refused.status == 429
        assert is_readable(refused)


@pytest.mark.parametrize("path", [f"{MINE}/live", f"{MINE}/stream", f"{MINE}/positions", "/healthz", "/nowhere"])
@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_a_preflight_needs_no_token(method: str, path: str, pages: Served) -> None:
    """A preflight of an unknown path succeeds too. Otherwise the page could not read the 404 that follows."""
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization,content-type"}
    response = await answer_to(pages, "OPTIONS", path, {**FROM_PAGE, **asked})
    assert response.status == 204
    assert is_readable(response)
    assert method in response.headers["Access-Control-Allow-Methods"].split(", ")
    allowed = response.headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert {"authorization", "content-type", "last-event-id"} <= set(allowed)
    assert int(response.headers["Access-Control-Max-Age"]) > 0


async def test_a_preflight_is_answered_while_the_database_is_unavailable(
    pages: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise StoreError("down")

    monkeypatch.setattr(pages.store, "owner", fail)
    headers = {**FROM_PAGE, "Access-Control-Request-Method": "GET"}
    assert (await answer_to(pages, "OPTIONS", f"{MINE}/live", headers)).status == 204


@pytest.mark.parametrize("origin", STRANGERS)
async def test_a_page_of_another_origin_can_read_nothing(origin: str, pages: Served) -> None:
    response = await answer_to(pages, "GET", f"{MINE}/live", {"Origin": origin, **bearer()})
    assert response.status == 200, "the server answers every client; the browser hides the answer from the page"
    preflight = await answer_to(
        pages, "OPTIONS", f"{MINE}/live", {"Origin": origin, "Access-Control-Request-Method": "GET"}
    )
    assert preflight.status == 405
    for each in (response, preflight):
        assert not [name for name in each.headers if name.startswith("Access-Control")]
        assert each.headers["Vary"] == "Origin"


async def test_an_options_request_that_is_not_a_preflight_is_405(pages: Served) -> None:
    for headers in ({}, FROM_PAGE, {"Access-Control-Request-Method": "GET"}):
        assert (await answer_to(pages, "OPTIONS", "/healthz", headers)).status == 405


async def test_the_answer_to_a_request_without_an_origin_has_vary_origin(pages: Served) -> None:
    response = await answer_to(pages, "GET", "/healthz")
    assert response.headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Origin" not in response.headers


async def test_without_cors_origins_no_answer_has_cors_headers(guarded: Served) -> None:
    preflight = {**FROM_PAGE, "Access-Control-Request-Method": "GET"}
    for method, path, headers in (("GET", "/healthz", FROM_PAGE), ("OPTIONS", "/healthz", preflight)):
        response = await answer_to(guarded, method, path, headers)
        assert response.status == (200 if method == "GET" else 405)
        assert not [name for name in response.headers if name.startswith("Access-Control") or name == "Vary"]


async def test_only_the_public_listener_answers_pages_of_other_origins(
    new_service: Callable[..., Service], stack: AsyncExitStack
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        sidecar = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        service = await stack.enter_async_context(new_service("one", sidecar, CORS_ORIGINS=f"{OTHER}, {ORIGIN}"))
        async with service.session.get(f"{service.url}/healthz", headers=FROM_PAGE) as response:
            assert is_readable(response)
        for method, path, status in (("GET", "/metrics", 200), ("GET", "/healthz", 200), ("OPTIONS", "/metrics", 405)):
            headers = {**FROM_PAGE, "Access-Control-Request-Method": "GET"}
            async with service.session.request(method, service.internal_url + path, headers=headers) as response:
                assert response.status == status
                assert not [name for name in response.headers if name.startswith("Access-Control") or name == "Vary"]


async def test_a_stream_begins_with_the_clients_retry_delay(pages: Served) -> None:
    bounds: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        bounds.append((low, high))
        return 4.7114

    pages.api._uniform = draw
    async with pages.session.get(f"{pages.url}{MINE}/stream", headers=bearer()) as stream:
        assert await stream.content.readline() == b"retry: 4711\r\n"
        assert await stream.content.readline() == b"\r\n", "without a data line there is no event"
    assert bounds == [(1.0, 10.0)]


async def test_the_retry_delays_of_streams_differ(pages: Served) -> None:
    pages.api._uniform = random.Random(1).uniform
    delays = set()
    for _ in range(5):
        async with pages.session.get(f"{pages.url}{MINE}/stream", headers=bearer()) as stream:
            delays.add(int((await stream.content.readline()).removeprefix(b"retry: ")))
    assert len(delays) == 5
    assert all(1000 <= delay <= 10_000 for delay in delays)
