"""The client's requests to the sidecar: the long poll, the resign, and the strict check of what comes back.

Whatever listens on the port may be slow, silent, dying, or no sidecar at all. An answer that does not keep to the
contract in every part is no answer: `Unknown` is raised, and nobody leads by it.
"""

import asyncio
import json
import logging
import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from math import inf
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

from sidecar.host import may_be_host

WAIT = 10.0
"""For how long, in seconds, a follower lets a request be held back."""
LIMIT = 1.0
"""What a request may take, in seconds, beyond the time for which it is held back."""
PAUSE = (0.1, 0.5)
"""Between which times, in seconds, lies the pause after a request that got no valid answer."""
BURST, RATE = 100, 20.0
"""So many requests, and so many more each second, may follow upon answers; beyond that there are pauses."""
LONGEST_GRANT = 60.0
"""An `expires_in` above this, in seconds, is no sidecar's."""
LONGEST_ANSWER = 16 * 1024
"""A body above this, in bytes, is no sidecar's."""

logger = logging.getLogger("sidecar.client")


class Unknown(Exception):
    """The sidecar gave no valid answer; the text says why, and is the same each time for the same reason."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A valid answer. `token` and `deadline` are None unless it grants the lead; `deadline` is on the asker's clock."""

    instance_id: str
    holder: str | None
    state: str
    version: str
    token: int | None
    deadline: float | None


def parse(body: bytes, name: str, sent_at: float) -> Answer:
    """Check the answer to `GET /is-leader/NAME` that was asked for at `sent_at`, in seconds of the asker's clock.

    Raises:
        Unknown: it breaks the contract.
    """
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):  # the latter from thousands of brackets
        raise Unknown("the answer is not JSON") from None
    match told:
        case {
            "lease": str(lease),
            "is_leader": bool(leads),
            "instance_id": str(instance_id),
            "holder": (str() | None) as holder,
            "token": token,
            "expires_in": expires_in,
            "state": str(state),
            "version": str(version),
        }:
            pass
        case _:
            raise Unknown("the answer lacks a field, or has one of a wrong type")
    if lease != name:
        raise Unknown("the answer is about another lease")
    if not instance_id:
        raise Unknown("the answer's instance_id is empty")
    if not leads:
        if token is not None or expires_in is not None:
            raise Unknown("the answer has a token or expires_in, though it does not lead")
        return Answer(instance_id, holder, state, version, None, None)
    # `type` and not `isinstance`: true is an int to Python. A database keeps the token as a bigint.
    if type(token) is not int or not 0 < token < 2**63:
        raise Unknown("the answer's token is no positive integer of 63 bits")
    if type(expires_in) not in (int, float) or not 0 < expires_in <= LONGEST_GRANT:  # NaN is in no range
        raise Unknown(f"the answer's expires_in is not above 0 and at most {LONGEST_GRANT:g} s")
    if holder != instance_id:
        raise Unknown("the answer names another holder, though it leads")
    return Answer(instance_id, holder, state, version, token, sent_at + expires_in)


class Sidecar:
    """The sidecar at `url`, asked over connections that are kept open; `clock` gives the moment a request is sent.

    Raises:
        ValueError: the address is none.
    """

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        if not _is_address(url):
            raise ValueError(f"the sidecar's address is not of the form http://HOST:PORT: {url!r}")
        self._url = url.rstrip("/")
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._resigns: dict[str, asyncio.Task[None]] = {}

    async def open(self) -> None:
        """Make ready to ask; nothing is sent."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # each request has a limit of its own
            # A word of this process's: a resign that an earlier one left behind is not taken for ours.
            headers={"Accept-Encoding": "identity", "X-Lease-Client": secrets.token_hex(8)},
            auto_decompress=False,
            trust_env=False,  # a proxy has no business between a program and its sidecar
        )

    async def close(self) -> None:
        """Close the connections."""
        for resign in self._resigns.values():
            resign.cancel()
        await asyncio.gather(*self._resigns.values(), return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, name: str, hold: Mapping[str, str], limit: float) -> Answer:
        """`GET /is-leader/NAME` with `hold` (wait and version, or nothing) as its query, for `limit` seconds at most.

        A resign under way still comes first: a sidecar that thaws could take it for the resign of what it grants now.

        Raises:
            Unknown: whatever else than a valid answer came of it.
        """
        if (resign := self._resigns.get(name)) is not None and not resign.done():
            await asyncio.wait((resign,), timeout=limit)
            if not resign.done():
                raise Unknown("the resign is not answered yet")
        sent_at = self._clock()
        try:
            async with asyncio.timeout(limit), self._request("GET", "is-leader", name, params=hold) as response:
                if response.status != 200:
                    raise Unknown(f"the answer is HTTP {response.status}")
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > LONGEST_ANSWER:
                        raise Unknown(f"the answer is longer than {LONGEST_ANSWER} bytes")
        except TimeoutError:
            raise Unknown("no answer in time") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unknown(f"no answer ({type(error).__name__})") from error
        return parse(bytes(body), name, sent_at)

    async def knock(self, name: str) -> None:
        """Have one connection more than the poll's: a resign then finds it open. It is no demand, and may fail."""
        try:
            async with asyncio.timeout(LIMIT), self._request("GET", "leader", name) as response:
                await response.content.readany()  # aiohttp keeps no connection open after HEAD
        except (aiohttp.ClientError, OSError) as error:
            logger.debug("%s: no spare connection (%s)", name, type(error).__name__)

    async def resign(self, name: str, token: int | None = None) -> None:
        """`POST /resign/NAME`: of that term only or, without a token, of the lease altogether.

        A sidecar that is gone or silent is no error: the lease goes when its grant runs out. An answer is waited for
        at most `LIMIT` seconds, but the request goes on until it is answered or the connection breaks.
        """
        resign = self._resigns.get(name)
        if resign is None or resign.done():
            resign = self._resigns[name] = asyncio.create_task(self._resign(name, token), name=f"resign {name}")
        await asyncio.wait((resign,), timeout=LIMIT)
        if resign.done():
            resign.result()
        else:
            logger.info("%s: resign is not answered yet", name)

    async def _resign(self, name: str, token: int | None) -> None:
        term = {"token": str(token)} if token is not None else {}
        for last in (False, True):
            try:
                async with self._request("POST", "resign", name, params=term) as response:
                    if response.status != 200:
                        logger.warning("%s: resign was answered with HTTP %d", name, response.status)
                    return
            except aiohttp.ClientConnectionError as error:  # a connection kept open may turn out to be dead
                if last:
                    logger.info("%s: resign was not heard (%s)", name, type(error).__name__)
            except (aiohttp.ClientError, OSError) as error:
                logger.info("%s: resign was not heard (%s)", name, type(error).__name__)
                return

    def _request(
        self, method: str, path: str, name: str, **options: Any
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        if self._session is None:
            raise RuntimeError("the LeaseClient is not open: use 'async with LeaseClient() as client'")
        url = f"{self._url}/{path}/{quote(name, safe='')}"
        return self._session.request(method, url, allow_redirects=False, **options)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        reachable = may_be_host(parts.hostname or "") and parts.port != 0
    except ValueError:
        return False
    return reachable and parts.scheme in ("http", "https") and not parts.query and not parts.fragment


class Poll:
    """The long poll about one lease: what was told last, and when to ask again.

    `answer` is the last valid one; `trouble` says why none came since, or is None. `uniform` is as `random.uniform`.
    """

    def __init__(self, name: str, sidecar: Sidecar, uniform: Callable[[float, float], float]) -> None:
        self._name = name
        self._sidecar = sidecar
        self._uniform = uniform
        self._version: str | None = None
        self._credit, self._counted_at = float(BURST), -inf
        self.answer: Answer | None = None
        self.trouble: str | None = None

    def afresh(self) -> None:
        """Let the next request be answered at once, whether something changed or not."""
        self._version = None

    async def next(self, left: Callable[[], float], token: int | None = None) -> Answer | None:
        """Ask once, after a pause where one is called for; None if no valid answer came, which is logged once.

        None, too, if no time is `left` after the pause.

        `left()` is the time, in seconds, within which an answer is of use (infinite while not leading): an answer is
        asked for after a third of it, and given up in time for another try. `token` is of the last term.
        """
        if self.trouble is not None or not self._spend():
            await asyncio.sleep(min(self._uniform(*PAUSE), max(left() / 4, 0.01)))
            if left() <= 0:  # we were frozen: to ask now would be to campaign while the work comes to its end
                return None
        if self._version is None:
            hold, limit = {}, min(LIMIT, left())
        else:
            wait = min(WAIT, max(left() / 3, 0.001))
            hold, limit = {"wait": f"{wait:.3f}", "version": self._version}, wait + min(LIMIT, wait)
        believed = {} if token is None else {"token": str(token)}
        try:
            answer = await self._sidecar.ask(self._name, hold | believed, limit)
        except Unknown as unknown:
            self._version = None
            if self.trouble != str(unknown):
                self.trouble = str(unknown)
                logger.warning("%s: not known who leads: %s", self._name, unknown, extra={"lease": self._name})
            return None
        if self.trouble is not None:
            logger.info("%s: the sidecar answers again", self._name, extra={"lease": self._name})
        self.answer, self.trouble, self._version = answer, None, answer.version
        return answer

    def _spend(self) -> bool:
        """Count one request; False if there were too many: only a sidecar that ignores `wait` answers so often."""
        now = asyncio.get_running_loop().time()
        self._credit = min(self._credit + (now - self._counted_at) * RATE, BURST)
        self._counted_at = now
        self._credit = max(self._credit - 1, 0.0)
        return self._credit > 0
