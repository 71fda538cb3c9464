"""The example page in Chromium, served from another origin than the API. `make browser` runs these tests.

The file is not named test_*.py, so that `make test` needs no Chromium.
"""

import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Literal
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web

from ops.local.servers import free_port
from service.commands.development_token import development_token
from service.commands.samples import SAMPLES, USERS
from service.settings import AuthSettings
from tests.support.chromium import Page
from tests.support.fake_sidecar import LeadingSidecar
from tests.support.listening import listening
from tests.support.processes import LIMIT, Process, Service
from tests.support.waiting import eventually

PROJECT = {
    "SUPABASE_URL": "http://127.0.0.1:54321",
    "SUPABASE_JWT_SECRET": "a secret of these tests, which signs tokens",
}
GROWTH = next(iter(SAMPLES))
LINE = "document.querySelector('#chart .line')?.getAttribute('d')"
VALUE = "document.querySelector('#value').textContent"
STATE = "document.querySelector('#state').dataset.state"
PROBLEM = "!document.querySelector('#problem').hidden && document.querySelector('#problem').textContent"
SHORT_LIFE = "0.1"
"""Validity of a token in the test of renewals, in minutes. The API accepts a token for 10 s longer."""


class PageServer(Process):
    """The server of the example, with its own origin."""

    def __init__(self, log: Path, api: str, port: int, minutes: str = "10") -> None:
        self.origin = f"http://127.0.0.1:{port}"
        words = ("--port", str(port), "--api", api, "--minutes", minutes)
        super().__init__(log, ["-m", "examples.browser.server", *words], **PROJECT)

    async def link(self, name: str = "Growth") -> str:
        """Return the address that signs in the owner of a sample portfolio."""
        found = await eventually(lambda: re.search(rf"^{name} +(http\S+)$", self.output, re.MULTILINE), within=LIMIT)
        await eventually(self._answers, within=LIMIT)
        return str(found[1])

    async def _answers(self) -> bool:
        async with aiohttp.ClientSession() as session, session.get(self.origin) as response:
            return response.status == 200


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
async def service(new_service: Callable[..., Service], stack: AsyncExitStack, port: int) -> Service:
    """A task whose values change every 0.2 s, and whose `CORS_ORIGINS` contains the page's origin."""

    async def nothing(_: str) -> None:
        pass

    sidecar = await stack.enter_async_context(LeadingSidecar(nothing))
    settings = {"AUTH": "supabase", "CORS_ORIGINS": f"http://127.0.0.1:{port}", **PROJECT}
    return await stack.enter_async_context(new_service("one", sidecar.url, **settings))


@pytest.fixture
async def server(service: Service, stack: AsyncExitStack, port: int, tmp_path: Path) -> PageServer:
    return await stack.enter_async_context(PageServer(tmp_path / "page.log", service.url, port))


def token(user: UUID = USERS[0], *, hours: float = 1.0, **changed: str) -> str:
    settings = AuthSettings.model_validate({name.lower(): value for name, value in (PROJECT | changed).items()})
    return development_token(settings, user, now=time.time() - (7200 if hours < 0 else 0), hours=abs(hours))


async def sign_in(page: Page, **fields: str) -> None:
    await page.wait_for("!document.querySelector('#sign-in').hidden")
    for name, value in fields.items():
        await page.evaluate(f"document.forms[0]['{name}'].value = {json.dumps(value)}")
    await page.evaluate("document.querySelector('form button').click()")


async def moves(page: Page) -> None:
    """Wait until the line and the value have changed."""
    line, value = await page.wait_for(f"{LINE} && [{LINE}, {VALUE}]")
    await page.wait_for(f"{LINE} !== {json.dumps(line)} && {VALUE} !== {json.dumps(value)}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
async def test_a_link_signs_in_and_the_line_moves(
    width: int, scheme: Literal["light", "dark"], page: Page, server: PageServer, service: Service
) -> None:
    await page.viewport(width, 844)
    await page.color_scheme(scheme)
    await page.navigate(await server.link())
    await page.wait_for(f"{LINE}?.split('L').length >= 3")
    await moves(page)
    assert await page.evaluate(STATE) == "live"
    assert re.fullmatch(r"\$[\d,]+\.\d\d", await page.evaluate(VALUE))
    assert await page.evaluate("location.href") == f"{server.origin}/", "the token has left the address bar"
    assert await page.evaluate("document.documentElement.scrollWidth") == width
    assert page.errors == []
    origins = {"{0.scheme}://{0.netloc}".format(urlsplit(request.url)) for request in page.requests}
    assert origins == {server.origin, service.url}, "no request leaves the machine"
    streams = [request for request in page.requests if request.url.startswith(service.url)]
    assert {(request.method, request.status) for request in streams} == {("OPTIONS", 204), ("GET", 200)}
    assert not any("token=" in request.url or "eyJ" in request.url for request in page.requests)


async def test_the_form_signs_in_and_a_reload_stays_signed_in_until_sign_out(
    page: Page, server: PageServer, service: Service
) -> None:
    await server.link()
    await page.navigate(server.origin)
    await sign_in(page, api=service.url + "/", portfolio=str(GROWTH), token=token())
    await moves(page)
    await page.navigate(server.origin + "/")
    await moves(page)
    await page.evaluate("document.querySelector('#sign-out').click()")
    await page.wait_for(f"{STATE} === 'signed-out'")
    await eventually(lambda: no_streams(service))
    await page.navigate(server.origin + "/?")
    await page.wait_for("!document.querySelector('#sign-in').hidden")
    assert await page.evaluate("JSON.stringify(sessionStorage)") == "{}"
    assert page.errors == []


async def no_streams(service: Service) -> bool:
    async with service.session.get(service.internal_url + "/metrics") as response:
        return "portfolio_stream_clients 0.0" in await response.text()


async def test_a_token_is_renewed_before_it_expires(
    page: Page, service: Service, stack: AsyncExitStack, port: int, tmp_path: Path
) -> None:
    server = await stack.enter_async_context(PageServer(tmp_path / "page.log", service.url, port, SHORT_LIFE))
    await page.navigate(await server.link())
    await moves(page)
    accepted_until = time.monotonic() + 60 * float(SHORT_LIFE) + 10
    await eventually(lambda: time.monotonic() > accepted_until + 1, within=LIMIT)
    await moves(page)
    assert page.errors == [], "a 401 would be an error"
    renewals = [request.status for request in page.requests if request.url.endswith("/token")]
    assert len(renewals) >= 3
    assert set(renewals) == {200}


async def test_the_page_reconnects_when_the_task_returns(page: Page, server: PageServer, service: Service) -> None:
    await page.navigate(await server.link())
    await moves(page)
    service.kill()
    await page.wait_for(f"{STATE} === 'waiting'")
    assert re.fullmatch(r"again in \d+ s", await page.evaluate("document.querySelector('#again').textContent"))
    service.start()
    await page.wait_for(f"{STATE} === 'live'")
    await moves(page)


class ShortStreams:
    """An API whose streams send a reconnect time and end at once. It accepts the requests of any page."""

    def __init__(self, retry: int) -> None:
        self.retry = retry
        self.begun: list[float] = []
        self.status = 200

    async def preflight(self, _: web.Request) -> web.Response:
        return web.Response(
            headers={"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "Authorization"}
        )

    async def stream(self, _: web.Request) -> web.Response:
        self.begun.append(time.monotonic())
        headers = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Retry-After"}
        if self.status != 200:
            return web.json_response({"error": "later"}, status=self.status, headers=headers | {"Retry-After": "3"})
        return web.Response(text=f"retry: {self.retry}\r\n\r\n", content_type="text/event-stream", headers=headers)


@pytest.fixture
async def short_streams() -> AsyncIterator[tuple[ShortStreams, str]]:
    streams = ShortStreams(100)
    app = web.Application()
    app.router.add_get("/portfolios/{id}/stream", streams.stream)
    app.router.add_options("/portfolios/{id}/stream", streams.preflight)
    async with listening(web.AppRunner(app)) as url:
        yield streams, url


async def test_the_server_sets_the_time_of_the_reconnect(
    page: Page, server: PageServer, short_streams: tuple[ShortStreams, str]
) -> None:
    streams, url = short_streams
    await server.link()
    await page.navigate(server.origin)
    await sign_in(page, api=url, token="")
    await eventually(lambda: len(streams.begun) >= 30, within=LIMIT)
    gaps = [later - earlier for earlier, later in zip(streams.begun, streams.begun[1:], strict=False)]
    assert min(gaps) >= 0.1
    assert median(gaps) < 1, "the page's own pause is from 1 to 10 s"
    streams.status = 503
    count = len(streams.begun)
    await eventually(lambda: len(streams.begun) >= count + 3, within=LIMIT)
    assert streams.begun[-1] - streams.begun[-2] >= 3, "Retry-After asks for a longer pause"


async def test_the_page_stays_signed_in_while_nobody_answers_the_renewal_of_its_token(
    page: Page, server: PageServer, short_streams: tuple[ShortStreams, str]
) -> None:
    streams, url = short_streams
    await server.link()
    await page.navigate(server.origin)
    await sign_in(page, api=url, portfolio=str(GROWTH), token=token())
    await eventually(lambda: streams.begun, within=LIMIT)
    server.kill()
    streams.status = 401
    await page.wait_for("document.querySelector('#state').textContent === 'the token cannot be renewed now'")
    assert await page.evaluate("document.querySelector('#sign-in').hidden")
    streams.status = 200
    count = len(streams.begun)
    await eventually(lambda: len(streams.begun) > count, within=LIMIT)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"token": token(hours=-1)}, "the access token has expired"),
        ({"token": token(SUPABASE_JWT_SECRET="x" * 40)}, "the access token is not valid"),
        ({"token": ""}, "an access token is needed"),
        ({"token": "nonsense"}, "not of the form 'Bearer TOKEN'"),
        ({"token": token(USERS[1])}, f"no portfolio {GROWTH}"),
        ({"portfolio": "nonsense"}, "not a UUID"),
    ],
)
async def test_the_page_shows_the_api_s_error_text(
    fields: dict[str, str], problem: str, page: Page, server: PageServer, service: Service
) -> None:
    await server.link()
    await page.navigate(server.origin)
    await sign_in(page, **{"api": service.url, "portfolio": str(GROWTH), "token": token(), **fields})
    assert problem in await page.wait_for(PROBLEM)
    assert await page.evaluate("document.forms[0].token.value") == ""


async def test_a_page_without_cors_access_reports_it(page: Page, service: Service, tmp_path: Path) -> None:
    async with PageServer(tmp_path / "other.log", service.url, free_port()) as other:
        await page.navigate(await other.link())
        await page.wait_for(f"{STATE} === 'waiting'")
        assert await page.evaluate("document.querySelector('#state').textContent") == "no answer"
        asked = f"Does the API run, and does its CORS_ORIGINS name {other.origin}?"
        assert await page.evaluate("document.querySelector('#change').textContent") == asked
    failures = {request.failure for request in page.requests if request.url.startswith(service.url)}
    assert failures & {"PreflightMissingAllowOriginHeader", "MissingAllowOriginHeader", "PreflightInvalidStatus"}


async def test_a_stored_token_is_never_sent_to_the_api_of_a_link(
    page: Page, server: PageServer, service: Service, short_streams: tuple[ShortStreams, str]
) -> None:
    link = await server.link()
    await page.navigate(link)
    await moves(page)
    streams, url = short_streams
    await page.navigate(f"{server.origin}/#api={url}&portfolio={GROWTH}")
    await eventually(lambda: streams.begun, within=LIMIT)
    given = parse_qs(urlsplit(link).fragment)["token"][0]
    assert given not in await page.evaluate("JSON.stringify(sessionStorage)")
    assert not [request for request in page.requests if request.method == "OPTIONS" and request.url.startswith(url)]


async def test_events_are_read_at_any_chunk_boundary(page: Page, server: PageServer) -> None:
    text = 'retry: 1500\r\n\r\n: ping\r\n\r\nid: 7-1\r\ndata: {"a":\r\ndata:"€ü"}\r\n\r\nevent: x\ndata\n\n'
    text += "data: y\r\rdata: cut"
    await server.link()
    await page.navigate(server.origin)
    results = await page.evaluate(f"""(async () => {{
        const {{ readEvents }} = await import("/events.js");
        const bytes = new TextEncoder().encode({json.dumps(text)});
        const results = new Set();
        for (let cut = 0; cut <= bytes.length; cut++) {{
            const body = new ReadableStream({{ start(controller) {{
                for (const part of [bytes.slice(0, cut), bytes.slice(cut)]) if (part.length) controller.enqueue(part);
                controller.close();
            }} }});
            const found = [];
            for await (const event of readEvents(body)) found.push(event);
            results.add(JSON.stringify(found));
        }}
        return [...results];
    }})()""")
    assert len(results) == 1
    assert json.loads(results[0]) == [
        {"retry": 1500},
        {"comment": "ping"},
        {"type": "message", "data": '{"a":\n"€ü"}', "id": "7-1"},
        {"type": "x", "data": "", "id": "7-1"},
        {"type": "message", "data": "y", "id": "7-1"},
    ]


async def test_the_renewal_of_a_token_needs_a_valid_token(server: PageServer) -> None:
    await server.link()
    async with aiohttp.ClientSession() as session:
        for given in (
            None,
            "Bearer x.y.z",
            f"Bearer {token(hours=-1)}",
            f"Bearer {token(SUPABASE_JWT_SECRET='x' * 40)}",
        ):
            headers = {} if given is None else {"Authorization": given}
            async with session.post(f"{server.origin}/token", headers=headers) as response:
                assert response.status == 401
        async with session.get(f"{server.origin}/../server.py") as response:
            assert response.status == 404
