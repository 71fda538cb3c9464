"""The operators' page: fixed files, and the headers that restrict a browser to what the page needs.

The page gets its data from the JSON routes, and puts texts into the document as text, never as HTML.
"""

from collections.abc import Awaitable, Callable
from importlib.resources import files

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.Response]]

DOCUMENT = "index.html"
PARTS = {"page.css": "text/css", "icon.svg": "image/svg+xml"} | dict.fromkeys(
    ("main.js", "leases.js", "jobs.js", "timeline.js", "text.js"), "text/javascript"
)
"""The files that the document loads, and their types."""

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of every answer of the internal listener. With them, the browser loads nothing from elsewhere, runs no inline
script, accepts no text as HTML, and shows the page in no frame."""


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Add the security headers to an answer before it is sent.

    Unless the handler has set `Cache-Control`, browsers must not reuse an answer without asking.
    """
    response.headers.update(SECURITY_HEADERS)
    response.headers.setdefault("Cache-Control", "no-cache")


def add_page(app: web.Application) -> None:
    """Serve the page at `/`, and its parts below `/page/`."""
    app.router.add_get("/", _file(DOCUMENT, "text/html"))
    for name, content_type in PARTS.items():
        app.router.add_get(f"/page/{name}", _file(name, content_type))


def _file(name: str, content_type: str) -> Handler:
    """A handler that answers with a file of the package, which is read once."""
    body = files("service.api").joinpath("page", name).read_bytes()

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type, charset="utf-8")

    return handler
