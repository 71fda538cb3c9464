"""The HTTP side: what the API answers.

Every answer, errors included, is JSON: `{"error": "...", "field": "..."}`, `field` where one is at fault. An outage of
the database is 503 for what needs it. Of what runs in the background it only reports. Somebody else's portfolio is 404,
as if it were not there.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from aiohttp import web
from aiohttp_sse import sse_response
from prometheus_client import CollectorRegistry
from prometheus_client.aiohttp import make_aiohttp_handler
from prometheus_client.exposition import choose_encoder

from runtime.escape import one_line
from service import answers
from service.access import StoreAccess
from service.auth import Caller, Guard, Unauthorized
from service.database import StoreError
from service.entries import FieldError, InvalidEntries, read_entries
from service.freshness import Freshness
from service.jwks import KeysUnavailable
from service.limits import ANSWER_LIMIT, BODY_LIMIT, LARGEST_BODY, StreamQuota, TooManyStreams
from service.openapi import description
from service.parameters import BadRequest, check_names, read_dates, read_limit, read_portfolio_id
from service.status import BackgroundStatus
from service.store import TooManyPositions
from service.streams import Streams
from service.telemetry import HttpMetrics

HEARTBEAT = 15.0
"""Seconds between the comments that keep a silent stream open: under the 60 after which a load balancer closes it."""
SEND_LIMIT = 30.0
"""Seconds that a stream's client may leave what was sent untaken."""
DAY = 86_400.0
STREAM = "/portfolios/{id}/stream"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

logger = logging.getLogger(__name__)


class Api:
    """The routes. `draining` turns /healthz to 503; everything else is answered until the listener closes."""

    def __init__(
        self,
        access: StoreAccess,
        streams: Streams,
        background: BackgroundStatus,
        registry: CollectorRegistry,
        metrics: HttpMetrics,
        guard: Guard,
        freshness: Freshness,
    ) -> None:
        self.draining = False
        self._access = access
        self._streams = streams
        self._background = background
        self._metrics_handler = make_aiohttp_handler(registry)
        self._metrics = metrics
        self._guard = guard
        self._freshness = freshness
        self._quota = StreamQuota()

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[self._count, self._tell_errors, self._in_time], client_max_size=LARGEST_BODY)
        app.router.add_get("/portfolios/{id:[^/]+}/live", self._live)
        app.router.add_get("/portfolios/{id:[^/]+}/history", self._history)
        app.router.add_get("/portfolios/{id:[^/]+}/stream", self._stream, allow_head=False)
        app.router.add_put("/portfolios/{id:[^/]+}/positions", self._put_positions)
        app.router.add_get("/background/status", self._status)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/metrics", self._read_metrics)
        app.router.add_get("/openapi.json", self._openapi)
        return app

    async def _live(self, request: web.Request) -> web.Response:
        portfolio_id, _, _ = await self._portfolio(request)
        value = await self._access.store.live(portfolio_id)
        if value is None:
            return _json({"error": f"portfolio {portfolio_id} has no live value yet"}, status=404)
        return _json(answers.live_value(self._freshness.of(value)))

    async def _history(self, request: web.Request) -> web.Response:
        portfolio_id, _, _ = await self._portfolio(request)
        check_names(request.query, "from", "to", "limit")
        first, last = read_dates(request.query)
        rows = await self._access.store.history(portfolio_id, first, last, read_limit(request.query))
        return _json({"portfolio_id": portfolio_id, "history": [answers.history_row(row) for row in rows]})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: the current value at once, then each new one; Last-Event-ID changes nothing.

        The stream ends when the caller's token has expired.
        """
        portfolio_id, _, caller = await self._portfolio(request)
        with (
            self._quota.one(caller.user_id),
            self._metrics.streams.track_inprogress(),
            self._streams.subscriber(portfolio_id) as subscriber,
            _at(caller.expires_at, subscriber.end),
        ):
            async with sse_response(request, ping_interval=HEARTBEAT, send_timeout=SEND_LIMIT) as response:
                async for value in subscriber:
                    event = answers.to_json(answers.live_value(value))
                    try:
                        await response.send(event, id=f"{value.token}-{value.as_of.timestamp():.6f}")
                    except TimeoutError:
                        break  # it takes nothing any more, and has been cut off
        return response

    async def _put_positions(self, request: web.Request) -> web.Response:
        """Add or change some of the portfolio's positions; the others stay."""
        portfolio_id, owner, _ = await self._portfolio(request)
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="not application/json")
        if (announced := request.content_length or 0) > LARGEST_BODY:
            raise web.HTTPRequestEntityTooLarge(LARGEST_BODY, announced)
        try:
            async with asyncio.timeout(BODY_LIMIT):
                body = await request.read()
        except TimeoutError:
            raise web.HTTPRequestTimeout(text=f"the body did not come in {BODY_LIMIT:g} s") from None
        except web.RequestPayloadError:
            raise InvalidEntries(FieldError("body", "not encoded as the headers say")) from None
        entries = read_entries(body, portfolio_id, owner)
        count = await self._access.store.put_own_positions(portfolio_id, owner, entries)
        if count is None:
            raise _no_portfolio(portfolio_id)
        return _json({"portfolio_id": portfolio_id, "written": len(entries), "positions": count})

    async def _portfolio(self, request: web.Request) -> tuple[UUID, UUID, Caller]:
        """The portfolio that the path names, its owner, and the caller, whose own it is."""
        caller = await self._guard.caller(request.headers.get("Authorization"))
        portfolio_id = read_portfolio_id(request.match_info)
        owner = await self._access.store.owner(portfolio_id)
        if owner is None or not caller.may_see(owner):
            raise _no_portfolio(portfolio_id)
        return portfolio_id, owner, caller

    async def _status(self, _: web.Request) -> web.Response:
        return _json(await self._background.report())

    async def _healthz(self, _: web.Request) -> web.Response:
        """Whether this process serves. The database and the sidecar are told of, and change nothing: see `access`."""
        state = "draining" if self.draining else "ok"
        body = {"status": state, "database": self._access.trouble or "ok", "sidecar": self._background.sidecar}
        return _json(body, status=503 if self.draining else 200)

    async def _read_metrics(self, request: web.Request) -> web.StreamResponse:
        try:
            choose_encoder(",".join(request.headers.getall("Accept", ())))
        except TypeError:  # all that the library says to a version that is no number
            raise web.HTTPNotAcceptable(text="no such version of a format in Accept") from None
        return await self._metrics_handler(request)

    async def _openapi(self, _: web.Request) -> web.Response:
        return _json(description())

    @web.middleware
    async def _tell_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except BadRequest as error:
            return _json({"error": str(error), "field": error.field}, status=400)
        except InvalidEntries as invalid:
            first, *_ = found = [{"error": error.problem, "field": error.field} for error in invalid.errors]
            return _json({**first, "errors": found}, status=400)
        except Unauthorized as error:
            challenge = "Bearer" if "Authorization" not in request.headers else 'Bearer error="invalid_token"'
            return _json({"error": str(error)}, status=401, headers={"WWW-Authenticate": challenge})
        except KeysUnavailable:
            error_text = "access tokens cannot be checked now"
            return _json({"error": error_text}, status=503, headers={"Retry-After": "5"})
        except TooManyStreams as error:
            return _json({"error": str(error)}, status=429)
        except TooManyPositions as error:
            return _json({"error": str(error)}, status=409)
        except StoreError as error:
            # An outage has been logged once; an error of a database that answers has not.
            level = logging.DEBUG if self._access.trouble else logging.WARNING
            logger.log(level, "%s %s: %s", request.method, request.path, error)
            return _json({"error": "the database is not available"}, status=503, headers={"Retry-After": "5"})
        except web.HTTPError as error:
            headers = {name: error.headers[name] for name in ("Allow", "Retry-After") if name in error.headers}
            return _json({"error": _explain(error, request)}, status=error.status, headers=headers)
        except ConnectionError:
            raise  # the client has gone: there is nobody to answer
        except Exception:  # a bug: its traceback is for the log, its 500 is JSON like every answer
            logger.exception("%s %s failed", request.method, request.path)
            return _json({"error": "internal error"}, status=500)

    @web.middleware
    async def _in_time(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        if resource is not None and resource.canonical == STREAM:
            return await handler(request)
        try:
            async with asyncio.timeout(ANSWER_LIMIT) as limit:
                return await handler(request)
        except TimeoutError:
            if not limit.expired():
                raise
            text = f"no answer in {ANSWER_LIMIT:g} s"
            raise web.HTTPServiceUnavailable(text=text, headers={"Retry-After": "5"}) from None

    @web.middleware
    async def _count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "none"
        status = "gone"  # cancelled, or the connection was lost
        started = time.perf_counter()
        try:
            response = await handler(request)
            status = str(response.status)
        finally:
            method = request.method if request.method in ("GET", "HEAD", "PUT") else "other"
            self._metrics.requests.labels(method, route, status).inc()
            if route != STREAM:
                self._metrics.seconds.labels(route).observe(time.perf_counter() - started)
        return response


def _no_portfolio(portfolio_id: UUID) -> web.HTTPNotFound:
    return web.HTTPNotFound(text=f"no portfolio {portfolio_id}")


@contextmanager
def _at(moment: float | None, do: Callable[[], None]) -> Iterator[None]:
    """Do something at that time, in seconds since the epoch, or in a day, unless the block has ended before."""
    if moment is None:
        yield
        return
    handle = asyncio.get_running_loop().call_later(min(max(0.0, moment - time.time()), DAY), do)
    try:
        yield
    finally:
        handle.cancel()


def _explain(error: web.HTTPError, request: web.Request) -> str:
    match error:
        case web.HTTPMethodNotAllowed():
            return f"{one_line(request.method, 64)} is not allowed here"
        case web.HTTPNotFound() if request.match_info.route.resource is None:
            return "no such path"
    return error.text or error.reason


def _json(body: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response(body, status=status, headers=headers, dumps=answers.to_json)
