"""The public listener, which a load balancer connects to the internet.

Every answer except a stream is JSON, errors included. A portfolio of another user is answered with 404, like one that
does not exist. Routes for operators are on the internal listener (`service.api.internal_routes`).
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp_sse import EventSourceResponse, sse_response

from service.api import responses
from service.api.auth import Caller, Guard
from service.api.cors import Cors
from service.api.health import Health
from service.api.limits import BODY_LIMIT, MAX_BODY, StreamQuota
from service.api.middleware import Middleware
from service.api.openapi import description
from service.api.position_body import FieldError, InvalidEntries, read_entries
from service.api.query import check_names, read_dates, read_limit, read_portfolio_id
from service.api.response_types import document_response, json_response
from service.api.store_access import StoreAccess
from service.api.stream_admission import StreamAdmission
from service.api.streams import Streams
from service.api.write_turns import WriteTurns
from service.portfolio.freshness import Freshness
from service.telemetry import HttpMetrics

HEARTBEAT = 15.0
"""Time between the comments that keep an idle stream open, in seconds.

A load balancer closes an idle connection after 60 s.
"""
SEND_LIMIT = 30.0
"""Limit for a stream's client to receive what was sent, in seconds."""
MAX_DELAY = 86_400.0
"""Maximum delay of a timer, in seconds."""
RETRY_DELAY = (1.0, 10.0)
"""Bounds of the time after which a client connects again to a stream that has ended, in seconds.

Each stream draws its own time, so that the clients of a task that stops do not all come back at the same moment.
"""
STREAM = "/portfolios/{id}/stream"


class Api:
    """The public routes. They answer until the listener closes.

    Args:
        access: the access to the database.
        streams: the live values.
        admission: decides whether a new stream may begin.
        health: the state of this process.
        metrics: the metrics of requests and streams.
        guard: authenticates requests.
        freshness: decides which values are stale.
        cors: the origins whose pages may use the routes.
        uniform: draws a number between two bounds, like `random.uniform`.
    """

    def __init__(
        self,
        access: StoreAccess,
        streams: Streams,
        admission: StreamAdmission,
        health: Health,
        metrics: HttpMetrics,
        guard: Guard,
        freshness: Freshness,
        cors: Cors | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._access = access
        self._streams = streams
        self._admission = admission
        self._health = health
        self._metrics = metrics
        self._guard = guard
        self._freshness = freshness
        self._cors = cors or Cors()
        self._uniform = uniform
        self._quota = StreamQuota()
        self._turns = WriteTurns()

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = Middleware(self._metrics, self._access, endless=(STREAM,)).application(MAX_BODY)
        self._cors.add_to(app)
        app.router.add_get("/portfolios/{id:[^/]+}/live", self._live)
        app.router.add_get("/portfolios/{id:[^/]+}/history", self._history)
        app.router.add_get("/portfolios/{id:[^/]+}/stream", self._stream, allow_head=False)
        app.router.add_put("/portfolios/{id:[^/]+}/positions", self._put_positions)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/openapi.json", document_response(description()))
        return app

    async def _live(self, request: web.Request) -> web.Response:
        portfolio_id, _, caller = await self._portfolio(request)
        found = await self._access.store.live_of_owners([portfolio_id])
        owner, value = found.get(portfolio_id, (None, None))
        if owner is None or not caller.may_see(owner):  # the owner has changed since the check
            raise _no_portfolio(portfolio_id)
        if value is None:
            return json_response(responses.Error(error=f"portfolio {portfolio_id} has no live value yet"), status=404)
        return json_response(responses.LiveValue.of(self._freshness.of(value)))

    async def _history(self, request: web.Request) -> web.Response:
        portfolio_id, owner, _ = await self._portfolio(request)
        check_names(request.query, "from", "to", "limit")
        first, last = read_dates(request.query)
        rows = await self._access.store.history(portfolio_id, first, last, read_limit(request.query))
        if await self._access.store.owner(portfolio_id) != owner:  # the rows may be a new owner's
            raise _no_portfolio(portfolio_id)
        history = [responses.HistoryRow.of(row) for row in rows]
        return json_response(responses.History(portfolio_id=portfolio_id, history=history))

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Send the current value, then each new value, as server-sent events. Last-Event-ID is ignored.

        The first line sets the time from the end of the stream until the client connects again.

        The stream ends when the caller's token expires or the portfolio is no longer the caller's.
        """
        portfolio_id, _, caller = await self._portfolio(request)
        with (
            self._admission.admitted(),
            self._quota.counted(caller.user_id),
            self._metrics.streams.track_inprogress(),
            self._streams.subscriber(portfolio_id, caller.user_id) as subscriber,
            _call_at(caller.expires_at, subscriber.end),
        ):
            async with sse_response(
                request, ping_interval=HEARTBEAT, send_timeout=SEND_LIMIT, response_cls=_EventStream
            ) as response:
                await response.write(f"retry: {round(self._uniform(*RETRY_DELAY) * 1000)}\r\n\r\n".encode())
                async for value in subscriber:
                    event = responses.LiveValue.of(value).to_json()
                    try:
                        await response.send(event, id=f"{value.token}-{value.as_of.timestamp():.6f}")
                    except TimeoutError:
                        break  # the client has stopped reading, and its connection has been closed
        return response

    async def _put_positions(self, request: web.Request) -> web.Response:
        """Add or change some of the portfolio's positions. The others stay."""
        portfolio_id, owner, _ = await self._portfolio(request)
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="not application/json")
        if (announced := request.content_length or 0) > MAX_BODY:
            raise web.HTTPRequestEntityTooLarge(MAX_BODY, announced)
        try:
            async with asyncio.timeout(BODY_LIMIT):
                body = await request.read()
        except TimeoutError:
            raise web.HTTPRequestTimeout(text=f"the body did not arrive within {BODY_LIMIT:g} s") from None
        except web.RequestPayloadError:
            raise InvalidEntries(FieldError("body", "does not match its Content-Encoding")) from None
        entries = read_entries(body, portfolio_id, owner)
        async with self._turns.turn(owner):
            count = await self._access.store.put_own_positions(portfolio_id, owner, entries)
        if count is None:
            raise _no_portfolio(portfolio_id)
        return json_response(responses.Written(portfolio_id=portfolio_id, written=len(entries), positions=count))

    async def _portfolio(self, request: web.Request) -> tuple[UUID, UUID, Caller]:
        """The portfolio that the path names, its owner, and the caller. The caller may see the portfolio."""
        caller = await self._guard.caller(request.headers.get("Authorization"))
        portfolio_id = read_portfolio_id(request.match_info)
        owner = await self._access.store.owner(portfolio_id)
        if owner is None or not caller.may_see(owner):
            raise _no_portfolio(portfolio_id)
        return portfolio_id, owner, caller

    async def _healthz(self, _: web.Request) -> web.Response:
        """Return the state of this process and nothing else, because this route is public."""
        return json_response(responses.Health(status=self._health.state), status=self._health.http_status)


class _EventStream(EventSourceResponse):
    """Server-sent events. In HTTP/1.0 only the end of the connection marks the end of the stream."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the headers."""
        if request.version < HttpVersion11:
            self.force_close()
            self.headers["Connection"] = "close"
        return await super().prepare(request)


def _no_portfolio(portfolio_id: UUID) -> web.HTTPNotFound:
    return web.HTTPNotFound(text=f"no portfolio {portfolio_id}")


@contextmanager
def _call_at(moment: float | None, do: Callable[[], None]) -> Iterator[None]:
    """Call `do` at `moment`, but after `MAX_DELAY` at the latest, unless the block ends first.

    `moment` is in seconds since the epoch; None means never.
    """
    if moment is None:
        yield
        return
    handle = asyncio.get_running_loop().call_later(min(max(0.0, moment - time.time()), MAX_DELAY), do)
    try:
        yield
    finally:
        handle.cancel()
