"""The client's requests to the sidecar: the long poll, the resign, the reports, and the strict check of the answers.

The process on the port may be slow, silent, dying, or not a sidecar. An answer that breaks any part of the contract
raises `Unknown`, and grants no leadership.
"""

import asyncio
import json
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from math import inf
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

from runtime.host_names import may_be_host
from sidecar.client.reports import LONGEST_REPORT, PastTerm, SidecarReport, explanation, parse_history, parse_status
from sidecar.client.unknown import NoAnswerInTime, Unknown

WAIT = 10.0
"""Seconds for which a follower lets the sidecar hold a request."""
LIMIT = 1.0
"""Seconds that a request may take beyond the time for which it is held."""
ANSWERED = 0.1
"""Seconds from a resign within which the sidecar answers the `/is-leader` request that it holds."""
PAUSE = (0.1, 0.5)
"""Bounds of the pause, in seconds, after a request without a valid answer."""
BURST, RATE = 100, 20.0
"""Token bucket for requests that follow answers without a pause: a burst of 100, then 20 a second."""
LONGEST_GRANT = 60.0
"""Limit of a valid `expires_in`, in seconds."""
LONGEST_ANSWER = 16 * 1024
"""Limit of a valid answer's body, in bytes."""
HISTORY_LIMIT = 5.0
"""Seconds that a request for the last terms may take: the sidecar asks Redis."""

logger = logging.getLogger("sidecar.client")


@dataclass(frozen=True, slots=True)
class Answer:
    """A valid answer. `token` and `deadline` (on the client's clock) are None unless the answer grants leadership."""

    instance_id: str
    holder: str | None
    state: str
    version: str
    token: int | None
    deadline: float | None


def parse(body: bytes, name: str, sent_at: float) -> Answer:
    """Check the answer to a `GET /is-leader/NAME` that was sent at `sent_at`, in seconds of the client's clock.

    Raises:
        Unknown: the answer breaks the contract.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):  # the latter from thousands of brackets
        raise Unknown("the answer is not JSON") from None
    match content:
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
            raise Unknown("the answer lacks a field, or has a field of a wrong type")
    if lease != name:
        raise Unknown("the answer is about another lease")
    if not instance_id:
        raise Unknown("the answer's instance_id is empty")
    if not leads:
        if token is not None or expires_in is not None:
            raise Unknown("the answer has a token or expires_in, but is_leader is false")
        return Answer(instance_id, holder, state, version, None, None)
    # `type` and not `isinstance`: in Python true is an int. A database stores the token as a bigint.
    if type(token) is not int or not 0 < token < 2**63:
        raise Unknown("the answer's token is not a positive integer of 63 bits")
    if type(expires_in) not in (int, float) or not 0 < expires_in <= LONGEST_GRANT:  # NaN fails the comparison
        raise Unknown(f"the answer's expires_in is not above 0 and at most {LONGEST_GRANT:g} s")
    if holder != instance_id:
        raise Unknown("is_leader is true, but the answer names another holder")
    return Answer(instance_id, holder, state, version, token, sent_at + expires_in)


class SidecarApi:
    """The HTTP API of the sidecar at `url`, over connections that stay open.

    Args:
        url: the sidecar's control listener.
        clock: the client's clock; gives the time at which a request is sent, in seconds.

    Raises:
        ValueError: the URL is invalid.
    """

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        if not _is_address(url):
            _, login, host = url.rpartition("@")
            shown = f"***@{host}" if login else url  # an error must not repeat a password
            raise ValueError(f"the sidecar's address {shown!r} is not of the form http://HOST:PORT")
        self._url = url.rstrip("/")
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._resigns: dict[str, asyncio.Task[None]] = {}

    async def open(self) -> None:
        """Prepare the connections; nothing is sent.

        Raises:
            RuntimeError: the client is open already.
        """
        if self._session is not None:
            raise RuntimeError("the LeaseClient is open already: enter it once, and share it")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # each request has its own limit
            # The name of this process distinguishes its resign from a resign of an earlier process.
            headers={"Accept-Encoding": "identity", "X-Lease-Client": secrets.token_hex(8)},
            auto_decompress=False,
            skip_auto_headers=("Accept", "Content-Type", "User-Agent"),  # the sidecar reads none of them
            trust_env=False,  # a program reaches its sidecar without a proxy
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
        """`GET /is-leader/NAME` with the query `hold` (wait, version, token, or none), for `limit` seconds at most.

        A resign under way is awaited first. Otherwise a sidecar that was frozen could apply the resign to the term that
        it grants now.

        Raises:
            Unknown: no valid answer came.
        """
        if (resign := self._resigns.get(name)) is not None and not resign.done():
            await asyncio.wait((resign,), timeout=limit)
            if not resign.done():
                raise Unknown("the resign is not answered yet")
        sent_at = self._clock()
        body = await self._get(("is-leader", name), limit, LONGEST_ANSWER, hold)
        return parse(body, name, sent_at)

    async def status(self) -> SidecarReport:
        """`GET /status`, which does not count as demand.

        Raises:
            Unknown: no valid answer came.
        """
        return parse_status(await self._get(("status",), LIMIT, LONGEST_REPORT))

    async def history(self, name: str) -> list[PastTerm]:
        """`GET /history/NAME`, which does not count as demand. Returns the newest term first.

        Raises:
            Unknown: no valid answer came. Older sidecars have no history, and answer 404.
        """
        return parse_history(await self._get(("history", name), HISTORY_LIMIT, LONGEST_REPORT), name)

    async def _get(
        self, path: Sequence[str], limit: float, longest: int, query: Mapping[str, str] | None = None
    ) -> bytes:
        """The body of the answer to a GET: `longest` bytes at most, within `limit` seconds.

        Raises:
            Unknown: no such answer came, or the answer's status is not 200.
        """
        body = bytearray()
        try:
            async with asyncio.timeout(limit), self._request("GET", *path, params=query) as response:
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > longest:
                        raise Unknown(f"the answer is longer than {longest} bytes")
        except TimeoutError:
            raise NoAnswerInTime("no answer in time") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unknown(f"no answer ({type(error).__name__})") from error
        if response.status != 200:
            raise Unknown(f"the answer is HTTP {response.status}", explanation(bytes(body)))
        return bytes(body)

    async def open_spare_connection(self, name: str) -> None:
        """Open a second connection, so that a resign need not open one. This does not count as demand, and may fail."""
        try:
            async with asyncio.timeout(LIMIT), self._request("GET", "leader", name) as response:
                await response.content.readany()  # not HEAD: aiohttp closes the connection after it
        except (aiohttp.ClientError, OSError) as error:
            logger.debug("%s: no spare connection (%s)", name, type(error).__name__)

    async def resign(self, name: str, token: int | None = None) -> None:
        """`POST /resign/NAME`: resign the term of this token or, without a token, the lease.

        It is not an error if the sidecar has gone or is silent: a silent sidecar gives the lease up at the end of the
        grant. The method waits `LIMIT` seconds at most. The request continues until it is answered or the connection
        breaks.
        """
        await self.await_resign(name, token, self.start_resign(name, token))

    def start_resign(self, name: str, token: int | None) -> asyncio.Task[None]:
        """Start `resign`, or return the last resign of the lease if it is not answered yet."""
        resign = self._resigns.get(name)
        if resign is None or resign.done():
            resign = self._resigns[name] = asyncio.create_task(self._resign(name, token), name=f"resign {name}")
        return resign

    async def await_resign(
        self, name: str, token: int | None, resign: asyncio.Task[None], held_request: asyncio.Task[bool] | None = None
    ) -> None:
        """Await the end of a resign, at most `LIMIT` seconds.

        The resign also makes the sidecar answer `held_request`, the `/is-leader` request that it holds. If the answer
        takes longer than `ANSWERED` seconds, `held_request` is cancelled.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + LIMIT
        if held_request is not None:
            await asyncio.wait((resign, held_request), timeout=ANSWERED)
            held_request.cancel()
        await asyncio.wait((resign,), timeout=until - loop.time())
        if resign.done():
            resign.result()
        else:
            logger.info("%s: the resign is not answered yet", name, extra={"lease": name, "token": token})

    async def _resign(self, name: str, token: int | None) -> None:
        term = {"token": str(token)} if token is not None else {}
        fields = {"lease": name, "token": token}
        for last in (False, True):
            try:
                async with self._request("POST", "resign", name, params=term) as response:
                    if response.status != 200:
                        text = "%s: the resign was answered with HTTP %d"
                        logger.warning(text, name, response.status, extra=fields)
                    return
            except aiohttp.ClientConnectionError as error:  # an idle connection may turn out to be dead
                if last:
                    logger.info("%s: the resign got no answer (%s)", name, type(error).__name__, extra=fields)
            except (aiohttp.ClientError, OSError) as error:
                logger.info("%s: the resign got no answer (%s)", name, type(error).__name__, extra=fields)
                return

    def _request(self, method: str, *path: str, **options: Any) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        if self._session is None:
            raise RuntimeError("the LeaseClient is not open: use 'async with LeaseClient() as client'")
        url = "/".join((self._url, *(quote(part, safe="") for part in path)))
        return self._session.request(method, url, allow_redirects=False, **options)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        reachable = may_be_host(parts.hostname or "") and parts.port != 0
    except ValueError:
        return False
    plain = (
        url.isprintable() and " " not in url and "@" not in parts.netloc
    )  # the sidecar reads no user and no password
    return reachable and plain and parts.scheme in ("http", "https") and not parts.query and not parts.fragment


def wait_and_limit(left: float, *, holds: bool) -> tuple[float, float]:
    """Seconds for which the sidecar may hold a request, and seconds within which its answer must come.

    A leader asks again after a third of the time that it has `left` to work, and gives up a request early enough for
    another one. Without `holds`, the sidecar answers the request at once.
    """
    if not holds:
        return 0.0, min(LIMIT, left)
    wait = min(WAIT, max(left / 3, 0.001))
    return wait, wait + min(LIMIT, wait)


def pause_before_retry(left: float, uniform: Callable[[float, float], float]) -> float:
    """Seconds to wait after a request without a valid answer: at most a quarter of the time `left` to work."""
    return min(uniform(*PAUSE), max(left / 4, 0.01))


class Poll:
    """The long poll about one lease: the last answer, and when to ask again.

    `answer` is the last valid answer. `trouble` says why no valid answer has come since, or is None. `is_asking` is
    true while a request is under way. The owner sets `stopped` when it needs no more answers. After that, a
    pause in `next` ends without a request, and the end of a request under way changes neither `answer` nor `trouble`.

    Args:
        name: the name of the lease.
        sidecar: the sidecar to ask.
        uniform: as for `LeaseClient`.
    """

    def __init__(self, name: str, sidecar: SidecarApi, uniform: Callable[[float, float], float]) -> None:
        self._name = name
        self._sidecar = sidecar
        self._uniform = uniform
        self._version: str | None = None
        self._credit, self._counted_at = float(BURST), -inf
        self.answer: Answer | None = None
        self.trouble: str | None = None
        self._logged: str | None = None  # the last trouble that was logged since the last valid answer
        self.is_asking = self.stopped = False

    def forget_version(self) -> None:
        """Let the sidecar answer the next request at once, whether something changed or not."""
        self._version = None

    async def next(self, left: Callable[[], float], token: int | None = None) -> Answer | None:
        """Ask once, after a pause if the last request failed or the answers come too fast.

        Returns None if no valid answer came, if the poll is `stopped`, or if no time is `left` after the pause. Each
        new reason for a missing answer is logged once. A missing answer is not logged if the end of the grant left the
        sidecar less than `LIMIT` to answer, because the sidecar may be healthy.

        Args:
            left: gives the seconds within which an answer is of use, infinite while not leading.
            token: the token of the last term.
        """
        if self.trouble is not None or not self._spend():
            await asyncio.sleep(pause_before_retry(left(), self._uniform))
            if self.stopped or left() <= 0:  # a request now would campaign while the work ends
                return None
        wait, limit = wait_and_limit(left(), holds=self._version is not None)
        hold = {} if self._version is None else {"wait": f"{wait:.3f}", "version": self._version}
        believed = {} if token is None else {"token": str(token)}
        self.is_asking = True
        try:
            answer = await self._sidecar.ask(self._name, hold | believed, limit)
        except Unknown as unknown:
            self._version = None
            if not self.stopped:
                self.trouble = unknown.reason
                too_short = isinstance(unknown, NoAnswerInTime) and limit < wait + LIMIT
                if self.trouble != self._logged and not too_short:
                    self._logged = self.trouble
                    fields = {"lease": self._name, "event": "sidecar_unknown"}
                    logger.warning("%s: the leader is unknown: %s", self._name, unknown, extra=fields)
            return None
        finally:
            self.is_asking = False
        if self.stopped:
            return None
        if self._logged is not None:
            fields = {"lease": self._name, "event": "sidecar_recovered"}
            logger.info("%s: the sidecar answers again", self._name, extra=fields)
        self.answer, self.trouble, self._logged, self._version = answer, None, None, answer.version
        return answer

    def _spend(self) -> bool:
        """Count one request; False if there were too many. Only a sidecar that ignores `wait` answers that often."""
        now = asyncio.get_running_loop().time()
        self._credit = min(self._credit + (now - self._counted_at) * RATE, BURST)
        self._counted_at = now
        self._credit = max(self._credit - 1, 0.0)
        return self._credit > 0
