"""Requests to Alpaca's market data over HTTP: retries, the rate limit, and the meaning of each refusal.

Numbers are read as `Decimal`, and an invalid number as None. The keys appear in no log line and no error.
"""

import asyncio
import json
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any

import aiohttp
from pydantic import SecretStr

from runtime.backoff import Backoff
from runtime.bounded_body import AnswerTooLarge, read_body
from runtime.escape import one_line
from service.outgoing import http_session
from service.prices import PricesUnavailable

PARALLEL_REQUESTS = 4
"""Parallel requests of one query. The tracker and a job may query at the same time, so the client opens up to twice as
many connections."""
REQUEST_LIMIT = 5.0
"""Seconds that one answer may take."""
SHORTEST_ATTEMPT = 0.1
"""Seconds that a budget must have left for another attempt, or a tenth of the budget if that is less.

A shorter attempt would only time out, and its error would replace the reason of the attempt before it.
"""
BACKOFF = 0.25, 2.0
"""Seconds of the pause after a failure: first and longest. Each pause is shortened at random."""
MAX_RATE_WAIT = 60.0
"""Longest wait in seconds for the rate limit, which is counted by the minute."""
RATE_RESERVE = 0.25
"""Share of the rate limit that is kept for symbols that were priced before."""
MAX_ANSWER = 32 * 1024 * 1024
"""Limit of an answer, in bytes."""


class AccessRefused(PricesUnavailable):
    """The keys or the plan do not allow this request. Other requests of its kind will be refused too."""


class RequestRefused(Exception):
    """Alpaca will never answer this request; fewer or other symbols may help. `status` is 400 or 414."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Failed(Exception):
    """This attempt failed, but another one may succeed."""


class Budget:
    """The time for all attempts of one query together."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until = clock() + seconds
        self._least = min(SHORTEST_ATTEMPT, seconds / 10)

    def remaining(self) -> float:
        """Seconds left; 0.0 if they are too few for another attempt (see `SHORTEST_ATTEMPT`)."""
        left = self._until - self._clock()
        return left if left >= self._least else 0.0


class RateLimit:
    """The state of the rate limit, as Alpaca last reported it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._free_at = clock()
        self._scarce_until = clock()

    @property
    def is_scarce(self) -> bool:
        """Whether less than `RATE_RESERVE` of the rate limit is left until its next reset."""
        return max(self._free_at, self._scarce_until) > self._clock()

    @property
    def wait(self) -> float:
        """Seconds until the next request may be sent."""
        return max(0.0, self._free_at - self._clock())

    def update(self, headers: Mapping[str, str], *, refused: bool) -> None:
        """Read the rate limit from an answer's headers; `refused` is true if the answer's status was 429."""
        seconds = _until_reset(headers)
        if seconds is None and not refused:
            return
        pause = self._clock() + min(max(seconds or 1.0, 0.0), MAX_RATE_WAIT)
        left, limit = _number(headers, "X-RateLimit-Remaining"), _number(headers, "X-RateLimit-Limit")
        if refused or left == 0:
            self._free_at = pause
        elif left is not None and limit is not None and left < limit * RATE_RESERVE:
            self._scarce_until = pause


@dataclass(frozen=True, slots=True)
class Credentials:
    """Alpaca's two keys."""

    key_id: SecretStr
    secret_key: SecretStr

    def headers(self) -> dict[str, str]:
        """The headers of each request."""
        return {
            "APCA-API-KEY-ID": self.key_id.get_secret_value(),
            "APCA-API-SECRET-KEY": self.secret_key.get_secret_value(),
        }

    def hide(self, text: str) -> str:
        """The text with the keys replaced by ***."""
        for secret in (self.key_id, self.secret_key):
            text = text.replace(secret.get_secret_value(), "***")
        return text


class AlpacaClient:
    """Gets JSON objects from Alpaca, and retries temporary failures within a budget."""

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._url = url
        self._credentials = credentials
        self._clock = clock
        self._sleep = sleep
        self._uniform = uniform
        self._limit = RateLimit(clock)
        self._session: aiohttp.ClientSession | None = None

    def budget(self, seconds: float) -> Budget:
        """A budget of `seconds` from now."""
        return Budget(seconds, self._clock)

    @property
    def is_scarce(self) -> bool:
        """Whether the rate limit leaves only requests for symbols that were priced before."""
        return self._limit.is_scarce

    async def get(
        self, path: str, query: Mapping[str, str], budget: Budget, *, once: bool = False
    ) -> Mapping[str, Any]:
        """Get a JSON object from Alpaca.

        Args:
            path: path of the URL.
            query: parameters of the URL.
            budget: the time for all attempts.
            once: send at most one request, and none while the rate limit is reached.

        Raises:
            RequestRefused: Alpaca never answers this request.
            AccessRefused: Alpaca refuses the keys, or the plan does not allow the request.
            PricesUnavailable: there was no valid answer within the budget.
        """
        backoff = Backoff(*BACKOFF, least=0.0, uniform=self._uniform)
        reason = "no time left"
        while (left := budget.remaining()) > 0:
            if (wait := self._limit.wait) > 0:
                reason = f"the rate limit is reached, for another {wait:.0f} s"
                if once or wait >= left:
                    break
                await self._sleep(wait + self._uniform(0, BACKOFF[0]))
                continue
            try:
                # The time is not read again: aiohttp treats a limit of 0.0 as no limit.
                return await self._ask(path, query, min(REQUEST_LIMIT, left))
            except _Failed as failed:
                reason = str(failed)
            if once:
                break
            await self._sleep(min(backoff.next(), budget.remaining()))
        raise PricesUnavailable(f"Alpaca: {reason}")

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, path: str, query: Mapping[str, str], seconds: float) -> Mapping[str, Any]:
        try:
            async with self._open_session().get(
                self._url + path,
                params=query,
                timeout=aiohttp.ClientTimeout(total=seconds),
                allow_redirects=False,  # a redirect could send the keys to another host
            ) as response:
                body = await read_body(response, MAX_ANSWER)
        except TimeoutError:
            raise _Failed(f"no answer in {seconds:.1f} s") from None
        except AnswerTooLarge as error:
            raise PricesUnavailable(f"Alpaca: {error}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _Failed(f"no connection, or a broken one ({type(error).__name__})") from None
        status = response.status
        self._limit.update(response.headers, refused=status == 429)
        if status == 200:
            return _object(body)
        message = self._message(status, body)
        if status in (400, 414):
            raise RequestRefused(status, message)
        if status in (401, 403):
            raise AccessRefused(f"Alpaca: {message}")
        if status == 429 or status >= 500:
            raise _Failed(message)
        raise PricesUnavailable(f"Alpaca: {message}")

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = http_session(
                connections=2 * PARALLEL_REQUESTS,
                headers={**self._credentials.headers(), "Accept": "application/json"},
            )
        return self._session

    def _message(self, status: int, body: bytes) -> str:
        """The status and Alpaca's own message, if it has one."""
        try:
            said = _object(body).get("message")
        except PricesUnavailable:
            said = None
        words = self._credentials.hide(said) if isinstance(said, str) else ""
        return f"{status} {one_line(words)}".strip()


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body, parse_float=_decimal, parse_int=_decimal, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        raise PricesUnavailable("Alpaca: the answer is not JSON") from None
    if not isinstance(found, dict):
        raise PricesUnavailable("Alpaca: the answer is not a JSON object")
    return MappingProxyType(found)


def _decimal(text: str) -> Decimal | None:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent out of range
        return None


def _number(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name, "").strip()
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def _until_reset(headers: Mapping[str, str]) -> float | None:
    """Seconds until the rate limit is reset; None if the headers do not contain it.

    The time is measured by the server's own clock, which may differ from ours.
    """
    reset, date = headers.get("X-RateLimit-Reset", "").strip(), headers.get("Date", "")
    if re.fullmatch(r"[0-9]{1,12}", reset):
        try:
            # Date is truncated to whole seconds, so one second is added.
            return int(reset) - parsedate_to_datetime(date).timestamp() + 1.0
        except (ValueError, OverflowError):
            pass  # Date is missing, invalid, or has a year of many digits
    after = headers.get("Retry-After", "").strip()
    return float(after) if re.fullmatch(r"[0-9]{1,6}", after) else None
