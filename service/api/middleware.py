"""The middleware of both listeners: it counts requests, limits their time, and answers every error as JSON.

An error is `{"error": "...", "field": "..."}`; `field` is present if a field or parameter is invalid. During an outage
of the database, requests that need the database are answered with 503.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from runtime.escape import one_line
from service.api.auth import Unauthorized
from service.api.jwks import KeysUnavailable
from service.api.limits import ANSWER_LIMIT, TooManyStreams
from service.api.position_body import InvalidEntries
from service.api.query import BadRequest
from service.api.response_types import json_response
from service.api.responses import Error, FieldError, FieldErrors
from service.api.store_access import StoreAccess
from service.api.stream_admission import NoNewStream
from service.api.write_turns import TooManyWrites
from service.database.connection import StoreError
from service.database.position_writes import PositionsLocked, TooManyPositions
from service.telemetry import HttpMetrics

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REPORT_INTERVAL = 60.0
"""Minimum time between two log lines about requests that failed because of the database, in seconds."""

logger = logging.getLogger(__name__)


class Middleware:
    """The middlewares of one application.

    Args:
        metrics: the metrics to count requests in.
        access: the access to the database; its `trouble` reports an outage.
        endless: the routes of streams, which have no time limit.
    """

    def __init__(self, metrics: HttpMetrics, access: StoreAccess, *, endless: tuple[str, ...] = ()) -> None:
        self._metrics = metrics
        self._access = access
        self._endless = endless
        self._silent_until = -math.inf

    def application(self, largest_body: int) -> web.Application:
        """An application without routes that uses this middleware. `largest_body` is in bytes."""
        return web.Application(
            middlewares=[self._count, self._explain_errors, self._limit_time], client_max_size=largest_body
        )

    @web.middleware
    async def _explain_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except BadRequest as error:
            return json_response(FieldError(error=str(error), field=error.field), status=400)
        except InvalidEntries as invalid:
            first, *_ = found = [FieldError(error=error.problem, field=error.field) for error in invalid.errors]
            return json_response(FieldErrors(error=first.error, field=first.field, errors=found), status=400)
        except Unauthorized as error:
            challenge = "Bearer" if "Authorization" not in request.headers else 'Bearer error="invalid_token"'
            return json_response(Error(error=str(error)), status=401, headers={"WWW-Authenticate": challenge})
        except KeysUnavailable:
            error_text = "access tokens cannot be checked now"
            return json_response(Error(error=error_text), status=503, headers={"Retry-After": "5"})
        except TooManyStreams as error:
            return json_response(Error(error=str(error)), status=429)
        except TooManyWrites as error:
            return json_response(Error(error=str(error)), status=429, headers={"Retry-After": "1"})
        except (NoNewStream, PositionsLocked) as error:
            return json_response(Error(error=str(error)), status=503, headers={"Retry-After": "5"})
        except TooManyPositions as error:
            return json_response(Error(error=str(error)), status=409)
        except StoreError as error:
            # `StoreAccess` logs an outage. An error of a database that answers is logged here, once a minute.
            now = time.monotonic()
            already_reported = self._access.trouble or now < self._silent_until
            if not already_reported:
                self._silent_until = now + REPORT_INTERVAL
            level = logging.DEBUG if already_reported else logging.WARNING
            logger.log(level, "%s %s: %s", request.method, request.path, error)
            unavailable = Error(error="the database is not available")
            return json_response(unavailable, status=503, headers={"Retry-After": "5"})
        except web.HTTPError as error:
            headers = {name: error.headers[name] for name in ("Allow", "Retry-After") if name in error.headers}
            return json_response(Error(error=_explain(error, request)), status=error.status, headers=headers)
        except ConnectionError:
            raise  # the client has disconnected
        except Exception:  # a bug: the log gets the traceback, and the client a JSON error
            logger.exception("%s %s failed", request.method, request.path)
            return json_response(Error(error="internal error"), status=500)

    @web.middleware
    async def _limit_time(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        if resource is not None and resource.canonical in self._endless:
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
        status = "gone"  # the request was cancelled, or its connection was lost
        started = time.perf_counter()
        try:
            response = await handler(request)
            status = str(response.status)
        finally:
            method = request.method if request.method in ("GET", "HEAD", "PUT") else "other"
            self._metrics.requests.labels(method, route, status).inc()
            if route not in self._endless:
                self._metrics.seconds.labels(route).observe(time.perf_counter() - started)
        return response


def _explain(error: web.HTTPError, request: web.Request) -> str:
    match error:
        case web.HTTPMethodNotAllowed():
            return f"{one_line(request.method, 64)} is not allowed here"
        case web.HTTPNotFound() if request.match_info.route.resource is None:
            return "no such path"
    return error.text or error.reason
