"""The public keys of access tokens, fetched from the project that publishes them."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import aiohttp
import jwt

from runtime.bounded_body import AnswerTooLarge, read_body
from runtime.escape import one_line
from service.outgoing import http_session

JWKS_PATH = "/auth/v1/.well-known/jwks.json"

REFRESH_INTERVAL = 600.0
"""Time from a successful fetch to the next, in seconds; shorter if a token names an unknown key.

A withdrawn key stays valid until the next successful fetch.
"""
MIN_INTERVAL = 30.0
"""Minimum time from a successful fetch to the next, in seconds, however many tokens name unknown keys."""
RETRY_INTERVAL = 5.0
"""Time from a failed fetch to the next, in seconds.

Until the first success, a new task admits only tokens that are signed with HS256.
"""
FETCH_LIMIT = 5.0
"""Limit of a fetch, in seconds. A token with an unknown key waits for at most one fetch."""
MAX_ANSWER = 1024 * 1024
"""Limit of the answer, in bytes."""
MIN_RSA_BITS = 2048
"""Minimum size of an RSA key."""

MAX_REASON = 200
"""Limit of a logged error, in characters."""

Algorithm = Literal["ES256", "RS256"]

logger = logging.getLogger(__name__)


class UnknownKey(Exception):
    """The project does not publish the key."""


class KeysUnavailable(Exception):
    """The key is not known, and the published keys could not be fetched."""


class KeySet:
    """The keys of one project: fetched when first needed, then at intervals, and kept while a fetch fails.

    A known key is returned at once. A request for an unknown key starts another fetch, since projects change their
    keys, and waits for that fetch. No fetch begins within `MIN_INTERVAL` seconds of the last one, or `RETRY_INTERVAL`
    if that one failed.
    """

    def __init__(self, project_url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = project_url + JWKS_PATH
        self._clock = clock
        self._keys: Mapping[tuple[str, Algorithm], Any] = {}
        self._fetched_at: float | None = None
        self._failed = False
        self._fetching: asyncio.Task[None] | None = None
        """The fetch under way."""
        self._next_fetch: asyncio.TimerHandle | None = None
        self._session: aiohttp.ClientSession | None = None

    async def key(self, kid: str, algorithm: Algorithm) -> Any:
        """The public key with that id, of the type that the algorithm needs.

        Raises:
            UnknownKey: the project does not publish the key.
            KeysUnavailable: the key is not known, and the last fetch failed.
        """
        if (kid, algorithm) not in self._keys and (fetching := self._fetch_or_join()) is not None:
            await asyncio.wait((fetching,))  # shared: a caller that is cancelled does not cancel the fetch
        if (found := self._keys.get((kid, algorithm))) is not None:
            return found
        if self._failed:
            raise KeysUnavailable
        raise UnknownKey

    async def aclose(self) -> None:
        """Stop fetching, and close the connections."""
        if (fetching := self._fetching) is not None:
            fetching.cancel()
            await asyncio.wait((fetching,))
        if self._next_fetch is not None:
            self._next_fetch.cancel()
        if self._session is not None:
            await self._session.close()

    def _fetch_or_join(self) -> asyncio.Task[None] | None:
        """The fetch under way, or a new one; None if it is too early for a new one."""
        pause = RETRY_INTERVAL if self._failed else MIN_INTERVAL
        if self._fetching is None and (self._fetched_at is None or self._clock() - self._fetched_at >= pause):
            self._start_fetch()
        return self._fetching

    def _start_fetch(self) -> None:
        if self._next_fetch is not None:
            self._next_fetch.cancel()
        self._fetching = asyncio.create_task(self._refresh(), name="keys of access tokens")

    async def _refresh(self) -> None:
        failed = True
        try:
            self._keys = await self._fetch()
            failed = False
            if self._failed:
                logger.info("the keys of access tokens can be fetched again")
        except (aiohttp.ClientError, AnswerTooLarge, OSError, ValueError, RecursionError) as error:
            if not self._failed:  # the first failure of an outage
                logger.warning(
                    "SUPABASE_URL: the keys of access tokens cannot be fetched, %d are kept: %s",
                    len(self._keys),
                    _why(error),
                )
        finally:
            self._fetching, self._fetched_at, self._failed = None, self._clock(), failed
            loop = asyncio.get_running_loop()
            self._next_fetch = loop.call_later(RETRY_INTERVAL if failed else REFRESH_INTERVAL, self._start_fetch)

    async def _fetch(self) -> Mapping[tuple[str, Algorithm], Any]:
        if self._session is None:
            self._session = http_session(timeout=aiohttp.ClientTimeout(total=FETCH_LIMIT))
        async with self._session.get(self._url, allow_redirects=False) as response:
            if response.status != 200:
                raise ValueError(f"status {response.status}")
            body = await read_body(response, MAX_ANSWER)
        found = json.loads(body)
        match found:
            case {"keys": [*entries]}:
                return dict(key for entry in entries if (key := _public_key(entry)) is not None)
        raise ValueError("the answer is not a set of keys")


def _public_key(entry: object) -> tuple[tuple[str, Algorithm], Any] | None:
    """The key with its id and algorithm; None unless it is for signatures and of an accepted type."""
    if not isinstance(entry, dict) or not isinstance(kid := entry.get("kid"), str):
        return None
    algorithm: Algorithm
    match entry.get("kty"), entry.get("crv"):
        case "EC", "P-256":
            algorithm = "ES256"
        case "RSA", None:
            algorithm = "RS256"
        case _:
            return None
    if entry.get("alg", algorithm) != algorithm or entry.get("use", "sig") != "sig":
        return None
    public = {name: entry[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in entry}
    try:
        key = jwt.PyJWK(public, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if algorithm == "RS256" and key.key_size < MIN_RSA_BITS:
        return None
    return (kid, algorithm), key


def _why(error: Exception) -> str:
    """The error's message in one line; its type if it has no message."""
    return one_line(str(error) or type(error).__name__, MAX_REASON)
