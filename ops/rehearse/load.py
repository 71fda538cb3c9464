"""The load during all events: requests at a steady rate, and streams that stay open."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import aiohttp

ANSWER_LIMIT = 10.0
"""Seconds after which a request counts as failed."""

SILENCE_LIMIT = 40.0
"""Seconds without a byte after which a stream counts as broken; the service sends a comment every 15 s."""

RECONNECT_AFTER = 0.3


@dataclass(frozen=True)
class Request:
    """One request, sent at `at` (seconds since the epoch); `error` is None if the answer was 200."""

    at: float
    seconds: float
    path: str
    error: str | None


@dataclass(frozen=True)
class Broken:
    """The unwanted end of a stream, and its time."""

    at: float
    reason: str


@dataclass(frozen=True)
class Account:
    """A user's portfolio, and the user's access token."""

    portfolio: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        """The header of the user's requests."""
        return {"Authorization": f"Bearer {self.token}"}


class Load:
    """Sends requests and reads streams until cancelled; the results are in `requests` and `broken`.

    Args:
        base: the load balancer's URL.
        accounts: the accounts whose portfolios are requested.
        rate: requests a second.
        streams: number of streams that are open at the same time.
    """

    def __init__(self, base: str, accounts: Sequence[Account], rate: float, streams: int) -> None:
        self.requests: list[Request] = []
        self.broken: list[Broken] = []
        self.events = 0
        """Number of values that the streams have received in total."""
        self._base = base
        self.accounts = accounts
        self._rate = rate
        self._streams = streams

    async def run(self) -> None:
        """Run until cancelled."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
            for number in range(self._streams):
                group.create_task(self._keep_stream(session, self.accounts[number % len(self.accounts)]))
            started = time.monotonic()
            for number in count():
                await asyncio.sleep(max(0.0, started + number / self._rate - time.monotonic()))
                account = self.accounts[number % len(self.accounts)]
                path = f"/portfolios/{account.portfolio}/{'live' if number % 3 else 'history'}"
                group.create_task(self._request(session, account, path))

    async def _request(self, session: aiohttp.ClientSession, account: Account, path: str) -> None:
        at = time.time()
        try:
            timeout = aiohttp.ClientTimeout(total=ANSWER_LIMIT)
            async with session.get(self._base + path, headers=account.headers, timeout=timeout) as answer:
                await answer.read()
                error = None if answer.status == 200 else f"status {answer.status}"
        except (aiohttp.ClientError, OSError, TimeoutError) as failure:
            error = type(failure).__name__
        self.requests.append(Request(at, time.time() - at, path, error))

    async def _keep_stream(self, session: aiohttp.ClientSession, account: Account) -> None:
        path = f"/portfolios/{account.portfolio}/stream"
        timeout = aiohttp.ClientTimeout(total=None, connect=ANSWER_LIMIT, sock_read=SILENCE_LIMIT)
        while True:
            at = time.time()
            opened = False
            try:
                async with session.get(self._base + path, headers=account.headers, timeout=timeout) as answer:
                    opened = answer.status == 200
                    reason = f"status {answer.status}"
                    self.requests.append(Request(at, time.time() - at, path, None if opened else reason))
                    async for line in answer.content:
                        self.events += line.startswith(b"data:")
                    reason = "ended"
            except (aiohttp.ClientError, OSError, TimeoutError) as failure:
                reason = type(failure).__name__
                if not opened:
                    self.requests.append(Request(at, time.time() - at, path, reason))
            if opened:
                self.broken.append(Broken(time.time(), reason))
            await asyncio.sleep(RECONNECT_AFTER)
