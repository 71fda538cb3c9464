"""Cross-origin resource sharing: lets pages of the configured origins use the public listener.

Every answer to these pages has the CORS headers, including errors, streams, and the answers that aiohttp makes itself.
Without these headers, a page could not even read the status. The only exception is the answer 400 to a request that
aiohttp cannot parse, such as a request with the `Content-Encoding` br or zstd, or with a header or URL above 8190
bytes: its origin is unknown. Each origin is compared as a whole. Cookies are never allowed; a page sends its access
token in `Authorization`.

aiohttp-cors is not used: it adds no headers to the answers for unknown paths and methods, and it never adds `Vary`.
"""

from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

METHODS = "GET, HEAD, PUT"
"""Methods that a page may use."""
REQUEST_HEADERS = "Authorization, Cache-Control, Content-Encoding, Content-Type, Last-Event-ID"
"""Headers that a page may send. Clients of event streams send Cache-Control and Last-Event-ID."""
ANSWER_HEADERS = "Allow, Retry-After, WWW-Authenticate"
"""Headers of an answer that a page may read, in addition to the CORS-safelisted headers."""
MAX_AGE = 7200
"""Time for which a browser may cache the answer to a preflight, in seconds. This is Chromium's maximum."""


class Cors:
    """The policy of one listener.

    Args:
        origins: the origins whose pages may use the listener, as browsers send them. Without origins, the listener
            sends no CORS headers.
    """

    def __init__(self, origins: frozenset[str] = frozenset()) -> None:
        self._origins = origins

    def add_to(self, app: web.Application) -> None:
        """Apply the policy to an application that has not started."""
        if self._origins:
            app.middlewares.append(self._answer_preflight)
            app.on_response_prepare.append(self._add_headers)

    @web.middleware
    async def _answer_preflight(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a preflight for any path. It needs no access token, because browsers send none.

        An unknown path is allowed, so that the page can read the 404 of the request itself.
        """
        if (
            request.method != hdrs.METH_OPTIONS
            or self._allowed_origin(request) is None
            or hdrs.ACCESS_CONTROL_REQUEST_METHOD not in request.headers
        ):
            return await handler(request)
        headers = {
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: METHODS,
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: REQUEST_HEADERS,
            hdrs.ACCESS_CONTROL_MAX_AGE: str(MAX_AGE),
        }
        return web.Response(status=204, headers=headers)

    async def _add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers[hdrs.VARY] = hdrs.ORIGIN  # a cache must not give one origin's answer to another
        origin = self._allowed_origin(request)
        if origin is not None:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = ANSWER_HEADERS

    def _allowed_origin(self, request: web.Request) -> str | None:
        origin = request.headers.get(hdrs.ORIGIN)
        return origin if origin in self._origins else None
