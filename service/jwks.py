"""The public keys that access tokens are signed with, as a project publishes them."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import aiohttp
import jwt

PUBLISHED_AT = "/auth/v1/.well-known/jwks.json"

CACHED = 600.0
"""Seconds for which keys are used without a look: so long may a key live on that is published no more."""
PAUSE = 30.0
"""Seconds from one look to the next at least, however many tokens name keys that nobody knows."""
ANSWER_LIMIT = 5.0
"""Seconds that a look may take."""
LARGEST_ANSWER = 1024 * 1024
"""Bytes."""
SMALLEST_RSA = 2048
"""Bits."""

Algorithm = Literal["ES256", "RS256"]

logger = logging.getLogger(__name__)


class UnknownKey(Exception):
    """No such key is published."""


class KeysUnavailable(Exception):
    """Nobody can say now whether there is such a key."""


class KeySet:
    """The keys at one address, fetched when they are needed and kept while they cannot be.

    A key that is not known makes us look again, as keys are changed; but not more often than every `PAUSE` seconds.
    """

    def __init__(self, project_url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = project_url + PUBLISHED_AT
        self._clock = clock
        self._keys: Mapping[tuple[str, Algorithm], Any] = {}
        self._fetched_at: float | None = None
        self._looked_at: float | None = None
        self._failed = False
        self._lock = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    async def key(self, kid: str, algorithm: Algorithm) -> Any:
        """The public key of that id, of the type that the algorithm is for.

        Raises:
            UnknownKey: it is not among the published ones.
            KeysUnavailable: it is not among those we have, and the published ones cannot be had.
        """
        old = self._fetched_at is None or self._clock() - self._fetched_at >= CACHED
        if (old or (kid, algorithm) not in self._keys) and self._may_look():
            await self._look()
        if (found := self._keys.get((kid, algorithm))) is not None:
            return found
        if self._failed:
            raise KeysUnavailable
        raise UnknownKey

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _may_look(self) -> bool:
        return self._looked_at is None or self._clock() - self._looked_at >= PAUSE

    async def _look(self) -> None:
        before = self._looked_at
        async with self._lock:
            if self._looked_at != before:
                return  # somebody else just did
            try:
                self._keys = await self._fetch()
            except (aiohttp.ClientError, OSError, ValueError, RecursionError) as error:
                self._failed = True
                logger.warning("the keys of access tokens cannot be had, %d are kept: %s", len(self._keys), _why(error))
            else:
                self._failed = False
                self._fetched_at = self._clock()
            self._looked_at = self._clock()

    async def _fetch(self) -> Mapping[tuple[str, Algorithm], Any]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_LIMIT))
        body = bytearray()
        async with self._session.get(self._url, allow_redirects=False) as response:
            if response.status != 200:
                raise ValueError(f"status {response.status}")
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > LARGEST_ANSWER:
                    raise ValueError("the answer is too large")
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
    """In a line, without the address's secrets, should it have any."""
    return str(error) if type(error) is ValueError else type(error).__name__
