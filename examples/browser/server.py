"""A development server for the example page: it serves the page and renews access tokens.

README.md in this folder describes how to run it. It signs tokens with the API's shared secret, so it listens on
loopback only. In production the page is static files, and the identity provider renews tokens.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from urllib.parse import urlencode
from uuid import UUID

from aiohttp import web

from service.api.auth import Unauthorized, guard_from
from service.commands.development_token import development_token
from service.commands.samples import SAMPLES
from service.settings import AuthSettings, SettingsError, read_auth_settings

HOST = "127.0.0.1"
PAGE = Path(__file__).parent / "page"


class Tokens:
    """Access tokens of the API's users.

    Args:
        settings: the settings of the API: `SUPABASE_URL` and `SUPABASE_JWT_SECRET`, or `AUTH=off`.
        minutes: the validity of a token.
    """

    def __init__(self, settings: AuthSettings, minutes: float) -> None:
        self._settings = settings
        self._minutes = minutes
        self.guard = guard_from(settings)

    def new(self, user_id: UUID) -> str:
        """Return a token for a user; an empty string for an API without authentication."""
        if self._settings.auth == "off":
            return ""
        return development_token(self._settings, user_id, now=time.time(), hours=self._minutes / 60)

    async def renew(self, request: web.Request) -> web.Response:
        """Answer with a new token for the user of the request's token, in Supabase's format."""
        try:
            caller = await self.guard.caller(request.headers.get("Authorization"))
        except Unauthorized as error:
            return web.json_response({"error": str(error)}, status=401)
        if caller.user_id is None:
            return web.json_response({"error": "the API has no authentication"}, status=404)
        return web.json_response({"access_token": self.new(caller.user_id), "expires_in": self._minutes * 60})


def application(tokens: Tokens) -> web.Application:
    """The page at `/`, and the renewal of tokens at `POST /token`."""
    app = web.Application()
    app.router.add_get("/", _index)
    app.router.add_post("/token", tokens.renew)
    app.router.add_static("/", PAGE)
    app.on_response_prepare.append(_always_fresh)
    app.on_cleanup.append(lambda _: tokens.guard.aclose())
    return app


def links(page: str, api: str, tokens: Tokens) -> list[str]:
    """Return a line for each sample portfolio: its name, and an address that signs its owner in.

    The token comes after the `#`, so browsers send it to no server.
    """
    return [
        f"{name:12}{page}/#{urlencode({'api': api, 'portfolio': portfolio, 'token': tokens.new(user)}, safe=':/')}"
        for portfolio, (name, user, _) in SAMPLES.items()
    ]


async def _index(_: web.Request) -> web.FileResponse:
    return web.FileResponse(PAGE / "index.html")


async def _always_fresh(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Cache-Control"] = "no-cache"  # a reload shows an edited file


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m examples.browser.server", description=__doc__)
    parser.add_argument("--port", type=_port, default=8090, help="port of the page (default: 8090)")
    parser.add_argument("--api", default="http://127.0.0.1:8080", help="the API (default: http://127.0.0.1:8080)")
    parser.add_argument("--minutes", type=_minutes, default=10.0, help="validity of a token (default: 10)")
    options = parser.parse_args()
    page = f"http://{HOST}:{options.port}"
    try:
        tokens = Tokens(read_auth_settings(), options.minutes)
        found = links(page, options.api, tokens)
    except SettingsError as error:
        sys.exit(_refuse(error))
    print(
        f"The API needs CORS_ORIGINS={page}. Sign in within {options.minutes:g} minutes:", *found, sep="\n", flush=True
    )
    try:
        web.run_app(application(tokens), host=HOST, port=options.port, print=None)
    except OSError as error:
        sys.exit(_refuse(f"--port {options.port}: {os.strerror(error.errno or 0)}"))


def _refuse(problem: object) -> int:
    """Print the error, and return the exit status."""
    print(problem, file=sys.stderr)
    return 2


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError("not a port")
    return int(text)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes <= 24 * 60:
        raise argparse.ArgumentTypeError("not a number of minutes above 0, at most 1440")
    return minutes


if __name__ == "__main__":
    main()
