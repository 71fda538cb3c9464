"""A fake of Alpaca's market data API on loopback. Its answers, limits and refusals follow Alpaca's documentation."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from email.utils import formatdate
from typing import Any

from aiohttp import web

KEY_ID, SECRET_KEY = "PKTESTKEYID", "topsecretkey"
BASIC_PLAN = 200

Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


def trade(price: str, at: str = "2026-02-13T15:30:00.123456789Z") -> str:
    """A snapshot with a latest trade, as text with the price exactly as given."""
    day = '{"t":"2026-02-13T05:00:00Z","o":1,"h":1,"l":1,"c":1,"v":1,"n":1,"vw":1}'
    return (
        f'{{"latestTrade":{{"t":"{at}","x":"V","p":{price},"s":100,"c":["@"],"i":71675,"z":"C"}},'
        f'"latestQuote":{{"t":"{at}","ax":"V","ap":1,"as":1,"bx":"V","bp":1,"bs":1,"c":["R"],"z":"C"}},'
        f'"minuteBar":{day},"dailyBar":{day},"prevDailyBar":{day}}}'
    )


def bar(close: str, at: str = "2026-02-13T05:00:00Z") -> str:
    """A daily bar, as text."""
    return f'{{"t":"{at}","o":1.5,"h":2,"l":1,"c":{close},"v":1000,"n":10,"vw":1.7}}'


@dataclass
class Alpaca:
    """The server's data, its refusals, and the requests that it received."""

    snapshots: dict[str, str] = field(default_factory=dict)
    bars: dict[str, list[str]] = field(default_factory=dict)
    renamed: dict[str, tuple[date, str]] = field(default_factory=dict)
    """Symbols that a company gave up: the date of the change, and the company's present symbol.

    By default a request is for the company that has the symbol today. With `asof`, it is for the company that had the
    symbol on that date. The answer uses the symbol of the request.
    """
    invalid: set[str] = field(default_factory=set)
    names_invalid: bool = True
    most_symbols: int = 100_000
    """Number of symbols above which the URL counts as too long and is refused."""
    page: int = 10_000
    recent_sip: bool = False
    now: datetime = datetime(2026, 2, 13, 15, 30, 1, tzinfo=UTC)
    left: int = BASIC_PLAN
    reset_in: int = 30
    refills: bool = False
    """Whether the plan's requests are renewed each minute, as at Alpaca. Otherwise the test sets `left`."""
    delay: float = 0.0
    """Seconds that each answer takes."""
    clock_ahead: float = 0.0
    """Seconds by which the server's clock is ahead."""
    next: list[Behaviour] = field(default_factory=list)
    """Actions for the next requests, in place of an answer."""
    asked: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0
    url: str = ""
    _at_once: int = 0
    _refilled: float = field(default_factory=time.time)

    @property
    def symbols_asked(self) -> list[list[str]]:
        return [query["symbols"].split(",") for query in self.asked]

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Alpaca"]:
        app = web.Application()
        app.router.add_get("/v2/stocks/snapshots", self._refusing(self._snapshots))
        app.router.add_get("/v2/stocks/bars", self._refusing(self._bars))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, max_line_size=100_000)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            await runner.cleanup()

    def _refusing(self, answer: Callable[[dict[str, str]], str]) -> Behaviour:
        async def handle(request: web.Request) -> web.StreamResponse:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            try:
                return await self._handle(request, answer)
            finally:
                self._at_once -= 1

        return handle

    async def _handle(self, request: web.Request, answer: Callable[[dict[str, str]], str]) -> web.StreamResponse:
        query = dict(request.query)
        self.asked.append(query)
        await asyncio.sleep(self.delay)
        if self.refills:
            self._refill()
        if self.next:
            return await self.next.pop(0)(request)
        keys = request.headers.get("APCA-API-KEY-ID"), request.headers.get("APCA-API-SECRET-KEY")
        if keys != (KEY_ID, SECRET_KEY):
            return error(403, "forbidden.")
        if self.left == 0:
            return error(429, "too many requests.", self._limits())
        self.left -= 1
        symbols = query["symbols"].split(",")
        if len(symbols) > self.most_symbols:
            return web.Response(status=414, text="<html>Request-URI Too Large</html>", content_type="text/html")
        if wrong := [symbol for symbol in symbols if symbol in self.invalid]:
            words = f"invalid symbol: {wrong[0]}" if self.names_invalid else "invalid request"
            return error(400, words, self._limits())
        if query["feed"] == "sip" and not self.recent_sip and self._is_recent(query):
            return error(403, "subscription does not permit querying recent SIP data", self._limits())
        return web.Response(text=answer(query), content_type="application/json", headers=self._limits())

    def _is_recent(self, query: dict[str, str]) -> bool:
        end = datetime.fromisoformat(query["end"]) if "end" in query else self.now
        return end > self.now - timedelta(minutes=15)

    def _refill(self) -> None:
        now = time.time()
        if now - self._refilled >= 60:
            self._refilled, self.left = now, BASIC_PLAN
        self.reset_in = int(self._refilled + 60 - now) + 1

    def _limits(self) -> dict[str, str]:
        now = time.time() + self.clock_ahead
        return {
            "Date": formatdate(now, usegmt=True),
            "X-RateLimit-Limit": str(BASIC_PLAN),
            "X-RateLimit-Remaining": str(self.left),
            "X-RateLimit-Reset": str(int(now) + self.reset_in),
        }

    def _snapshots(self, query: dict[str, str]) -> str:
        known = (symbol for symbol in query["symbols"].split(",") if symbol in self.snapshots)
        return "{" + ",".join(f"{json.dumps(symbol)}:{self.snapshots[symbol]}" for symbol in known) + "}"

    def _today(self, symbol: str, asof: date) -> str:
        since, name = self.renamed.get(symbol, (date.min, symbol))
        return name if asof < since else symbol

    def _bars(self, query: dict[str, str]) -> str:
        """One page of up to `limit` bars over all symbols, in the order of the symbols."""
        first, last = (datetime.fromisoformat(query[name]) for name in ("start", "end"))
        asof = date.fromisoformat(query.get("asof", str(self.now.date())))
        every = [
            (symbol, text)
            for symbol in query["symbols"].split(",")
            for text in self.bars.get(self._today(symbol, asof), ())
            if first <= datetime.fromisoformat(json.loads(text)["t"]) <= last
        ]
        start = int(query.get("page_token", "0"))
        size = min(self.page, int(query["limit"]))
        bars: dict[str, list[str]] = {}
        for symbol, text in every[start : start + size]:
            bars.setdefault(symbol, []).append(text)
        inside = ",".join(f"{json.dumps(symbol)}:[{','.join(texts)}]" for symbol, texts in bars.items())
        token = json.dumps(str(start + size)) if start + size < len(every) else "null"
        return f'{{"bars":{{{inside}}},"next_page_token":{token}}}'


def error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"message": message}, status=status, headers=headers)


def answering(status: int, text: str = "", **more: Any) -> Behaviour:
    """An action that answers with this response."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=text, **more)

    return answer


async def hang(_: web.Request) -> web.StreamResponse:
    """An action that never answers."""
    await asyncio.Event().wait()
    raise AssertionError


async def break_off(request: web.Request) -> web.StreamResponse:
    """An action that closes the connection in the middle of the answer."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"AAPL":')
    assert request.transport is not None
    request.transport.abort()
    return response
