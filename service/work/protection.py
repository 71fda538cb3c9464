"""ECS scale-in protection: a deploy or a scale-in does not stop this task while it runs a job.

A protected task delays deployments, so the task is protected for the length of its jobs and never for a whole term. The
task role needs `ecs:UpdateTaskProtection`. Without this permission everything else still works, because the next leader
continues an interrupted job. So a refusal is only logged, and no job waits for the agent.

The API and a run by hand in its container protect the same task, and each could end the protection of the other. So
before a process ends its protection, it reads the task's state (`ecs:GetTaskProtection`). A protection that expires
later than the process's own was set by the other process, and is left.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from typing import Any, Protocol

import aiohttp

from runtime.bounded_body import AnswerTooLarge, read_body
from runtime.escape import one_line
from service.outgoing import http_session
from service.work.metrics import WorkMetrics

EXPIRY_MINUTES = 10
"""Minutes after which the protection ends by itself if this process is gone."""
REFRESH_INTERVAL = 180.0
"""Seconds from one request for the protection to the next."""
RETRY_INTERVAL = 30.0
"""Seconds until the next attempt after a failure."""
ANSWER_LIMIT = 5.0
"""Seconds that one answer of the agent may take."""
STATE_LIMIT = 1.0
"""Seconds that the agent's answer about the task's state may take."""
SAME_EXPIRY = timedelta(seconds=1)
"""Maximum difference of two reports of the same expiry. An answer may omit the fraction of a second."""
SHUTDOWN_LIMIT = 2.0
"""Seconds that the agent's answer may take at the end of the process."""
MAX_ANSWER = 64 * 1024
"""Limit of an answer, in bytes."""
WORDS_SHOWN = 300
"""Limit of an answer's text in a log line, in characters."""

logger = logging.getLogger(__name__)


class Protection(Protocol):
    """The protection that a job uses."""

    def held(self) -> AbstractContextManager[None]:
        """Protect the task for the length of the block. Blocks may overlap. Never waits and never raises."""

    async def run(self) -> None:
        """Send requests to the agent until cancelled, then end the protection."""


class NoProtection:
    """No protection, where there is no ECS agent."""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Do nothing."""
        yield

    async def run(self) -> None:
        """Do nothing."""


class Refused(Exception):
    """The agent's refusal, in one line. `certain` is true if the agent reports that nothing was changed."""

    def __init__(self, reason: str, *, certain: bool) -> None:
        super().__init__(reason)
        self.certain = certain


class TaskProtection:
    """Protection by the agent at `ECS_AGENT_URI`.

    Only `run` sends requests to the agent, so the end of a job does not wait for the agent. The next leader may already
    be waiting for the job to end.
    """

    def __init__(
        self,
        agent_uri: str,
        metrics: WorkMetrics,
        *,
        refresh: float = REFRESH_INTERVAL,
        retry: float = RETRY_INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = agent_uri.rstrip("/") + "/task-protection/v1/state"
        self._metrics = metrics
        self._refresh = refresh
        self._retry = retry
        self._clock = clock
        self._holders = 0
        self._wake = asyncio.Event()
        self._until: float | None = None
        """Time until which the protection may last, by our clock; None without protection."""
        self._expiry: datetime | None = None
        """Expiry of the last protection that this process requested, as ECS reported it; None if it is unknown."""
        self._requested = False
        """Last requested state."""
        self._retry_at = clock()
        """Time of the next request for the same state."""
        self._last_refusal: str | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Protect the task for the length of the block."""
        self._holders += 1
        self._wake.set()
        try:
            yield
        finally:
            self._holders -= 1
            self._wake.set()

    async def run(self) -> None:
        """Protect the task while a block of `held` is active. End the protection afterwards, and when cancelled."""
        async with http_session() as session:
            try:
                while True:
                    self._wake.clear()
                    pause = await self._reconcile(session)
                    try:
                        async with asyncio.timeout(pause):
                            await self._wake.wait()
                    except TimeoutError:
                        pass  # time to send the request again
            finally:
                if self._until is not None:
                    await self._request(session, protect=False, limit=SHUTDOWN_LIMIT)

    async def _reconcile(self, session: aiohttp.ClientSession) -> float | None:
        """Request the wanted state if a request is due; returns the seconds until the next one is due, or None."""
        wanted = self._holders > 0
        if self._until is not None and self._clock() >= self._until:
            self._record_until(None)
        if not wanted and self._until is None:
            return None
        if wanted != self._requested or self._clock() >= self._retry_at:
            accepted = await self._request(session, protect=wanted, limit=ANSWER_LIMIT)
            self._requested = wanted
            self._retry_at = self._clock() + (self._refresh if accepted else self._retry)
        return None if self._until is None and not wanted else max(0.0, self._retry_at - self._clock())

    async def _request(self, session: aiohttp.ClientSession, *, protect: bool, limit: float) -> bool:
        """Request or end the protection; returns whether the agent accepted the request."""
        if not protect and await self._is_of_another_process(session):
            self._record_until(None)
            logger.info("another process of this task keeps the task protected", extra={"event": "protection_left"})
            return True
        before = self._until
        if protect:  # recorded before the answer, because the answer may be lost although the agent accepted
            self._record_until(self._clock() + EXPIRY_MINUTES * 60)
        try:
            until = await self._put(session, protect=protect, limit=limit)
        except Refused as refusal:
            if protect and refusal.certain:
                self._record_until(before)
            self._metrics.protection_refused.inc()
            if str(refusal) != self._last_refusal:
                self._last_refusal = str(refusal)
                kept = f"stays protected for up to {EXPIRY_MINUTES} minutes"
                what = "is not protected from a scale-in" if protect else kept
                logger.warning("this task %s: %s", what, refusal)
            return False
        self._last_refusal = None
        if not protect:
            self._record_until(None)
            logger.info("this task is no longer protected", extra={"event": "protection_ended"})
        elif before is None:
            logger.info("this task is protected from a scale-in until %s", until, extra={"event": "protection_began"})
        return True

    def _record_until(self, until: float | None) -> None:
        self._until = until
        self._metrics.protected.set(until is not None)

    async def _is_of_another_process(self, session: aiohttp.ClientSession) -> bool:
        """Whether the task's protection expires later than this process requested; false if the agent does not say."""
        if self._expiry is None:
            return False
        try:
            expiry = _expiry_of(await self._ask(session, "GET", None, STATE_LIMIT))
        except Refused:
            return False
        return expiry is not None and expiry - self._expiry > SAME_EXPIRY

    async def _put(self, session: aiohttp.ClientSession, *, protect: bool, limit: float) -> object:
        """Request or end the protection; returns its expiry, as ECS reports it."""
        body: dict[str, object] = {"ProtectionEnabled": protect}
        if protect:
            body["ExpiresInMinutes"] = EXPIRY_MINUTES
            self._expiry = None  # unknown if the answer is lost although the agent accepted
        protection = await self._ask(session, "PUT", body, limit)
        if protection.get("ProtectionEnabled") is not protect:
            raise Refused("the ECS agent's answer is invalid", certain=False)
        self._expiry = _expiry_of(protection)
        return protection.get("ExpirationDate")

    async def _ask(
        self, session: aiohttp.ClientSession, method: str, body: object, limit: float
    ) -> Mapping[str, object]:
        """Send a request; returns the task's protection in the answer."""
        try:
            async with session.request(
                method, self._url, json=body, timeout=aiohttp.ClientTimeout(total=limit)
            ) as response:
                status, answer_body = response.status, await read_body(response, MAX_ANSWER)
        except TimeoutError:
            raise Refused(f"the ECS agent did not answer in {limit:g} s", certain=False) from None
        except AnswerTooLarge as error:
            raise Refused(f"the ECS agent: {error}", certain=False) from None
        except (aiohttp.ClientError, OSError) as error:
            raise Refused(f"the ECS agent cannot be reached ({type(error).__name__})", certain=False) from None
        answer = _object(answer_body)
        if failure := answer.get("failure"):  # ECS reports it with status 200
            raise Refused(f"ECS refuses: {_text_of(failure, 'Reason', 'Detail')}", certain=True)
        if status != 200:
            words = _text_of(answer.get("error"), "Code", "Message")
            raise Refused(f"the ECS agent answers {status} {words}".strip(), certain=status < 500)
        protection = answer.get("protection")
        if not isinstance(protection, dict):
            raise Refused("the ECS agent's answer is invalid", certain=False)
        return protection


def protection_by(agent_uri: str | None, metrics: WorkMetrics) -> Protection:
    """The agent's protection, or none where there is no agent."""
    return NoProtection() if agent_uri is None else TaskProtection(agent_uri, metrics)


def _expiry_of(protection: Mapping[str, object]) -> datetime | None:
    """The expiry of a protection; None without protection, or if the agent sends no valid time."""
    try:
        expiry = datetime.fromisoformat(str(protection.get("ExpirationDate")))
    except ValueError:
        return None
    return expiry if expiry.tzinfo is not None else None


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text_of(part: object, *names: str) -> str:
    """The values of these fields in a part of the answer, in one line."""
    texts = [str(part[name]) for name in names if part.get(name)] if isinstance(part, dict) else []
    return one_line(" ".join(": ".join(texts).split()), WORDS_SHOWN)
