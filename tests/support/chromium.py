"""Chromium for the tests over the DevTools protocol: pages, with their errors, requests and screenshots.

Each browser has its own profile and reaches only this machine. A page that needs something from outside fails as
it would without a network.
"""

import asyncio
import base64
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp

from tests.support.processes import LIMIT, clean_environment
from tests.support.waiting import eventually

PROGRAM = "chromium"
NARROW = 600
"""Width in pixels below which a phone is emulated. A phone obeys the page's `viewport` tag."""
DOMAINS = ("Page", "Runtime", "Network", "Log")
"""Parts of the protocol whose events a page records."""
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # root, as in a container, cannot use Chromium's sandbox
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    "--remote-debugging-port=0",
)


class ChromiumError(Exception):
    """A command that Chromium refused, or a script that threw."""


@dataclass(slots=True)
class Request:
    """A request of a page and its result. A preflight is a separate request."""

    method: str
    url: str
    kind: str
    """The type of the resource: 'Document', 'Fetch', 'Preflight', 'Script', ..."""
    status: int | None = None
    """The answer's status; None before its header has arrived."""
    failure: str | None = None
    """The reason why the request failed; None if it did not fail."""


class Page:
    """A page of the browser."""

    def __init__(self, connection: "_Connection", session: str) -> None:
        self._connection = connection
        self._session = session
        self._loaded = asyncio.Event()
        self._requests: dict[str, Request] = {}
        self.requests: list[Request] = []
        """All requests, in order."""
        self.errors: list[str] = []
        """Errors of the console: thrown exceptions, `console.error`, failed assertions, violations of the content
        security policy, and requests that failed or were answered with 4xx or 5xx."""

    async def navigate(self, url: str) -> None:
        """Open an address, and wait until it has loaded.

        Raises:
            ChromiumError: the address cannot be opened.
        """
        self._loaded.clear()
        result = await self.command("Page.navigate", url=url)
        if "errorText" in result:
            raise ChromiumError(f"{url}: {result['errorText']}")
        if "loaderId" in result:  # a new document, not only another fragment
            async with asyncio.timeout(LIMIT):
                await self._loaded.wait()

    async def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, which must fit into JSON. A promise is awaited first.

        Raises:
            ChromiumError: the expression threw.
        """
        answer = await self.command(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise ChromiumError(_explain(answer["exceptionDetails"]))
        return answer["result"].get("value")

    async def wait_for(self, expression: str, *, within: float = LIMIT) -> Any:
        """Wait until a JavaScript expression is true, and return its value.

        Raises:
            TimeoutError: the expression was false for `within` seconds.
            ChromiumError: the expression threw.
        """
        return await eventually(lambda: self.evaluate(expression), within=within)

    async def viewport(self, width: int, height: int) -> None:
        """Give the page a size, in pixels."""
        await self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < NARROW,
        )

    async def color_scheme(self, scheme: Literal["dark", "light"]) -> None:
        """Emulate a reader who prefers this colour scheme."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.command("Emulation.setEmulatedMedia", features=features)

    async def screenshot(self, file: Path, *, whole: bool = False) -> None:
        """Write a picture of the viewport, or of the whole page, as PNG."""
        options: dict[str, Any] = {}
        if whole:
            size = (await self.command("Page.getLayoutMetrics"))["cssContentSize"]
            options = {"captureBeyondViewport": True, "clip": {**size, "scale": 1}}
        picture = await self.command("Page.captureScreenshot", format="png", **options)
        await asyncio.to_thread(file.write_bytes, base64.b64decode(picture["data"]))

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send any other command of the protocol, and return its result.

        Raises:
            ChromiumError: Chromium refused the command, or has ended.
        """
        return await self._connection.command(method, parameters, self._session)

    def notice(self, method: str, event: dict[str, Any]) -> None:
        """Record an event of the page."""
        match method:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Runtime.exceptionThrown":
                self.errors.append(_explain(event["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if event["type"] in ("error", "assert"):
                said = (str(each.get("value", each.get("description", ""))) for each in event["args"])
                self.errors.append(" ".join(said))
            case "Log.entryAdded" if event["entry"]["level"] == "error":
                entry = event["entry"]
                self.errors.append(f"{entry['text']} {entry.get('url', '')}".strip())
            case "Network.requestWillBeSent":
                asked = event["request"]
                request = Request(asked["method"], asked["url"], event.get("type", "Other"))
                self._requests[event["requestId"]] = request
                self.requests.append(request)
            case "Network.responseReceived" if event["requestId"] in self._requests:
                self._requests[event["requestId"]].status = event["response"]["status"]
            case "Network.loadingFailed" if event["requestId"] in self._requests:
                cors = event.get("corsErrorStatus", {}).get("corsError")
                self._requests[event["requestId"]].failure = cors or event["errorText"]


class Browser:
    """A running Chromium."""

    def __init__(self, connection: "_Connection") -> None:
        self._connection = connection

    async def new_page(self) -> Page:
        """Open an empty page that shares no cookies and no storage with other pages."""
        context = await self._connection.command("Target.createBrowserContext", {})
        target = await self._connection.command(
            "Target.createTarget", {"url": "about:blank", "browserContextId": context["browserContextId"]}
        )
        attached = await self._connection.command(
            "Target.attachToTarget", {"targetId": target["targetId"], "flatten": True}
        )
        page = Page(self._connection, attached["sessionId"])
        self._connection.pages[attached["sessionId"]] = page
        for domain in DOMAINS:
            await page.command(f"{domain}.enable")
        return page


@asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Browser]:
    """Run Chromium; its profile and its log are in `folder`.

    Raises:
        FileNotFoundError: there is no Chromium on the path.
    """
    with _running(folder) as address:
        url = await eventually(address, within=LIMIT)
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, max_msg_size=0) as socket,  # a picture is larger than the default limit
        ):
            connection = _Connection(socket)
            reading = asyncio.create_task(connection.read())
            try:
                yield Browser(connection)
            finally:
                reading.cancel()
                with suppress(asyncio.CancelledError):
                    await reading


@contextmanager
def _running(folder: Path) -> Iterator[Callable[[], str | None]]:
    """Run the program; yields a function that returns its address, or None before the address is written."""
    if shutil.which(PROGRAM) is None:
        raise FileNotFoundError(f"there is no {PROGRAM} on the path")
    profile = folder / "profile"
    profile.mkdir(parents=True)
    output, port = folder / "chromium.log", profile / "DevToolsActivePort"
    with output.open("wb") as log:
        process = subprocess.Popen(
            [PROGRAM, *OPTIONS, f"--user-data-dir={profile}", "about:blank"],
            env=clean_environment(HOME=str(folder)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # its own process group, to end all its processes
        )

    def address() -> str | None:
        if process.poll() is not None:
            raise ChromiumError(f"{PROGRAM} has ended: {output.read_text()}")
        lines = port.read_text().splitlines() if port.exists() else []
        return f"ws://127.0.0.1:{lines[0]}{lines[1]}" if len(lines) == 2 else None

    try:
        yield address
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class _Connection:
    """The connection to Chromium: numbered commands and their answers, and events of pages."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._count = 0
        self._ended = False
        self.pages: dict[str, Page] = {}

    async def command(self, method: str, parameters: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        if self._ended:
            raise ChromiumError(f"{method}: Chromium has ended")
        self._count += 1
        number = self._count
        self._answers[number] = asyncio.get_running_loop().create_future()
        sent: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        try:
            await self._socket.send_json(sent if session is None else {**sent, "sessionId": session})
            async with asyncio.timeout(LIMIT):
                answer = await self._answers[number]
        finally:
            del self._answers[number]
        if "error" in answer:
            raise ChromiumError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def read(self) -> None:
        """Receive answers and events until Chromium ends."""
        try:
            async for message in self._socket:
                received = message.json()
                answer = self._answers.get(received.get("id", 0))
                page = self.pages.get(received.get("sessionId", ""))
                if answer is not None and not answer.done():
                    answer.set_result(received)
                elif page is not None and "method" in received:
                    page.notice(received["method"], received["params"])
        finally:
            self._ended = True
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_result({"error": {"message": "Chromium has ended"}})


def _explain(details: dict[str, Any]) -> str:
    thrown = details.get("exception", {})
    return str(thrown.get("description") or f"{details['text']} {thrown.get('value', '')}".strip())
