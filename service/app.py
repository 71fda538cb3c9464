"""The HTTP side: what the API answers.

Every answer, errors included, is JSON: `{"error": "...", "field": "..."}`, `field` where one is at fault. An outage of
the database is 503 for what needs it. Of what runs in the background it only reports.
"""

import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import date
from typing import Any
from uuid import UUID

from aiohttp import web
from aiohttp_sse import sse_response
from prometheus_client import CollectorRegistry
from prometheus_client.aiohttp import make_aiohttp_handler

from service import answers
from service.access import StoreAccess
from service.database import StoreError
from service.status import BackgroundStatus
from service.store import Store
from service.streams import Streams
from service.telemetry import HttpMetrics

HEARTBEAT = 15.0
"""Seconds between the comments that keep a silent stream open: under the 60 after which a load balancer closes it."""
SEND_LIMIT = 30.0
"""Seconds that a stream's client may leave what was sent untaken."""
MOST_ROWS = 1000
"""Of history in one answer."""

STREAM = "/portfolios/{id}/stream"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

logger = logging.getLogger(__name__)


class BadRequest(Exception):
    """A parameter that cannot be used; `field` is its name."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field = field


class Api:
    """The routes. `draining` turns /healthz to 503; everything else is answered until the listener closes."""

    def __init__(
        self,
        access: StoreAccess,
        streams: Streams,
        background: BackgroundStatus,
        registry: CollectorRegistry,
        metrics: HttpMetrics,
    ) -> None:
        self.draining = False
        self._access = access
        self._streams = streams
        self._background = background
        self._metrics_handler = make_aiohttp_handler(registry)
        self._metrics = metrics

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[self._count, self._tell_errors])
        app.router.add_get("/portfolios/{id:[^/]+}/live", self._live)
        app.router.add_get("/portfolios/{id:[^/]+}/history", self._history)
        app.router.add_get("/portfolios/{id:[^/]+}/stream", self._stream, allow_head=False)
        app.router.add_get("/background/status", self._status)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/metrics", self._metrics_handler)
        return app

    async def _live(self, request: web.Request) -> web.Response:
        store = self._access.store
        portfolio_id = await _portfolio(request, store)
        value = await store.live(portfolio_id)
        if value is None:
            return _json({"error": f"portfolio {portfolio_id} has no live value yet"}, status=404)
        return _json(answers.live_value(value))

    async def _history(self, request: web.Request) -> web.Response:
        first, last = _date(request, "from"), _date(request, "to")
        if first is not None and last is not None and first > last:
            raise BadRequest("from", f"{first} is later than 'to', {last}")
        limit = _limit(request)
        store = self._access.store
        portfolio_id = await _portfolio(request, store)
        rows = await store.history(portfolio_id, first, last, limit)
        return _json({"portfolio_id": portfolio_id, "history": [answers.history_row(row) for row in rows]})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: the current value at once, then each new one; Last-Event-ID changes nothing."""
        portfolio_id = await _portfolio(request, self._access.store)
        with self._metrics.streams.track_inprogress(), self._streams.listener(portfolio_id) as listener:
            async with sse_response(request, ping_interval=HEARTBEAT, send_timeout=SEND_LIMIT) as response:
                async for value in listener:
                    event = answers.to_json(answers.live_value(value))
                    try:
                        await response.send(event, id=f"{value.token}-{value.as_of.timestamp():.6f}")
                    except TimeoutError:
                        break  # it takes nothing any more, and has been cut off
        return response

    async def _status(self, _: web.Request) -> web.Response:
        return _json(await self._background.report())

    async def _healthz(self, _: web.Request) -> web.Response:
        """Whether this process serves. The database and the sidecar are told of, and change nothing: see `access`."""
        state = "draining" if self.draining else "ok"
        body = {"status": state, "database": self._access.trouble or "ok", "sidecar": self._background.sidecar}
        return _json(body, status=503 if self.draining else 200)

    @web.middleware
    async def _tell_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except BadRequest as error:
            return _json({"error": str(error), "field": error.field}, status=400)
        except StoreError as error:
            # An outage has been logged once; an error of a database that answers has not.
            level = logging.DEBUG if self._access.trouble else logging.WARNING
            logger.log(level, "%s %s: %s", request.method, request.path, error)
            return _json({"error": "the database is not available"}, status=503, headers={"Retry-After": "5"})
        except web.HTTPError as error:
            headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
            return _json({"error": _explain(error, request)}, status=error.status, headers=headers)
        except ConnectionError:
            raise  # the client has gone: there is nobody to answer
        except Exception:  # a bug: its traceback is for the log, its 500 is JSON like every answer
            logger.exception("%s %s failed", request.method, request.path)
            return _json({"error": "internal error"}, status=500)

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
            method = request.method if request.method in ("GET", "HEAD") else "other"
            self._metrics.requests.labels(method, route, status).inc()
            if route != STREAM:
                self._metrics.seconds.labels(route).observe(time.perf_counter() - started)
        return response


async def _portfolio(request: web.Request, store: Store) -> UUID:
    """The portfolio that the path names, which exists."""
    text = request.match_info["id"]
    if not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text):
        raise BadRequest("id", "not a UUID")
    portfolio_id = UUID(text)
    if not await store.portfolio_exists(portfolio_id):
        raise web.HTTPNotFound(text=f"no portfolio {portfolio_id}")
    return portfolio_id


def _date(request: web.Request, name: str) -> date | None:
    text = request.query.get(name)
    if text is None:
        return None
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            return date.fromisoformat(text)
    except ValueError:
        pass  # such as February 30
    raise BadRequest(name, "not a date, YYYY-MM-DD")


def _limit(request: web.Request) -> int:
    text = request.query.get("limit", str(MOST_ROWS))
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= MOST_ROWS:
        raise BadRequest("limit", f"not a whole number from 1 to {MOST_ROWS}")
    return int(text)


def _explain(error: web.HTTPError, request: web.Request) -> str:
    match error:
        case web.HTTPMethodNotAllowed():
            return f"{request.method} is not allowed here"
        case web.HTTPNotFound() if request.match_info.route.resource is None:
            return "no such path"
    return error.text or error.reason


def _json(body: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response(body, status=status, headers=headers, dumps=answers.to_json)
