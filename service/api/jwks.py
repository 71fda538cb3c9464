"""The public keys that access tokens are signed with, as a project publishes them."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import aiohttp
import jwt

from runtime.escape import one_line
from service.ways_out import AnswerTooLarge, http_session, read_body

PUBLISHED_AT = "/auth/v1/.well-known/jwks.json"

CACHED = 600.0
"""Seconds from a look that went well to the next: so long may a key live on that is published no more."""
PAUSE = 30.0
"""Seconds from one look to the next at least, however many tokens name keys that nobody knows."""
RETRY = 5.0
"""Seconds from a look that failed to the next: until it goes well, a task that has just started lets nobody in."""
ANSWER_LIMIT = 5.0
"""Seconds that a look may take, and so that a token may wait whose key is not known."""
LARGEST_ANSWER = 1024 * 1024
"""Bytes."""
SMALLEST_RSA = 2048
"""Bits."""

WHY_SHOWN = 200
"""Characters of a cause."""

Algorithm = Literal["ES256", "RS256"]

logger = logging.getLogger(__name__)


class UnknownKey(Exception):
    """No such key is published."""


class KeysUnavailable(Exception):
    """Nobody can say now whether there is such a key."""


class KeySet:
    """The keys at one address: looked at when first needed, then again and again, and kept while they cannot be had.

    A key that is known is given at once, whatever a look does. One that is not known makes us look again, as keys are
    changed, and waits for that look; but none begins within `PAUSE` seconds of the last, or `RETRY` if that one failed.
    """

    def __init__(self, project_url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = project_url + PUBLISHED_AT
        self._clock = clock
        self._keys: Mapping[tuple[str, Algorithm], Any] = {}
        self._looked_at: float | None = None
        self._failed = False
        self._look: asyncio.Task[None] | None = None
        """The one under way."""
        self._next_look: asyncio.TimerHandle | None = None
        self._session: aiohttp.ClientSession | None = None

    async def key(self, kid: str, algorithm: Algorithm) -> Any:
        """The public key of that id, of the type that the algorithm is for.

        Raises:
            UnknownKey: it is not among the published ones.
            KeysUnavailable: it is not among those we have, and the published ones cannot be had.
        """
        if (kid, algorithm) not in self._keys and (look := self._look_anew()) is not None:
            await asyncio.wait((look,))  # it is everybody's: who gives up waiting does not end it
        if (found := self._keys.get((kid, algorithm))) is not None:
            return found
        if self._failed:
            raise KeysUnavailable
        raise UnknownKey

    async def aclose(self) -> None:
        """Look no more, and close the connections."""
        if (look := self._look) is not None:
            look.cancel()
            await asyncio.wait((look,))
        if self._next_look is not None:
            self._next_look.cancel()
        if self._session is not None:
            await self._session.close()

    def _look_anew(self) -> asyncio.Task[None] | None:
        """The look under way, or one that begins now; None if it is too early for another."""
        pause = RETRY if self._failed else PAUSE
        if self._look is None and (self._looked_at is None or self._clock() - self._looked_at >= pause):
            self._begin_look()
        return self._look

    def _begin_look(self) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
        self._look = asyncio.create_task(self._look_once(), name="keys of access tokens")

    async def _look_once(self) -> None:
        failed = True
        try:
            self._keys = await self._fetch()
            failed = False
            if self._failed:
                logger.info("the keys of access tokens are there again")
        except (aiohttp.ClientError, AnswerTooLarge, OSError, ValueError, RecursionError) as error:
            if not self._failed:  # told once, not at each look
                logger.warning(
                    "SUPABASE_URL: the keys of access tokens cannot be had, %d are kept: %s",
                    len(self._keys),
                    _why(error),
                )
        finally:
            self._look, self._looked_at, self._failed = None, self._clock(), failed
            loop = asyncio.get_running_loop()
            self._next_look = loop.call_later(RETRY if failed else CACHED, self._begin_look)

    async def _fetch(self) -> Mapping[tuple[str, Algorithm], Any]:
        if self._session is None:
            self._session = http_session(timeout=aiohttp.ClientTimeout(total=ANSWER_LIMIT))
        async with self._session.get(self._url, allow_redirects=False) as response:
            if response.status != 200:
                raise ValueError(f"status {response.status}")
            body = await read_body(response, LARGEST_ANSWER)
        found = json.loads(body)
        match found:
            case {"keys": [*entries]}:
                return dict(key for entry in entries if (key := _public_key(entry)) is not None)
        raise ValueError("the answer is no set of keys")


def _public_key(entry: object) -> tuple[tuple[str, Algorithm], Any] | None:
    """One key, if it is for signatures and of a type that we accept; what its type is for is not the token's to say."""
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
    if algorithm == "RS256" and key.key_size < SMALLEST_RSA:
        return None
    return (kid, algorithm), key


def _why(error: Exception) -> str:
    """The cause in a line: of what went wrong on the way, the network's or OpenSSL's own words."""
    return one_line(str(error) or type(error).__name__, WHY_SHOWN)
