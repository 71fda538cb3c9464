"""ECS scale-in protection: a deploy or a scale-in spares this task while it runs a job.

A protected task holds deployments up, so it is protected for the length of its jobs and never for a whole term. The
task role needs `ecs:UpdateTaskProtection`. Without it everything works too: a job that is cut off is carried on by the
next leader. So a refusal is logged and nothing else, and no job ever waits for the agent.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import aiohttp

from runtime.escape import one_line
from service.ways_out import AnswerTooLarge, http_session, read_body
from service.work.metrics import WorkMetrics

EXPIRES = 10
"""Minutes after which the protection ends by itself, should this process be gone."""
REFRESH = 180.0
"""Seconds until it is renewed."""
RETRY = 30.0
"""Seconds until it is asked for again after a failure."""
ANSWER_LIMIT = 5.0
"""Seconds that the agent may take."""
LAST_LIMIT = 2.0
"""The same at the end of the process."""
LARGEST_ANSWER = 64 * 1024
"""Bytes."""
WORDS_SHOWN = 300
"""Characters of an answer's words in a log line."""

logger = logging.getLogger(__name__)


class Protection(Protocol):
    """What runs a job needs of it."""

    def held(self) -> AbstractContextManager[None]:
        """For the length of the block the task should be protected; blocks may overlap. Never waits, never raises."""

    async def run(self) -> None:
        """Make it so, until cancelled; then it is taken back."""


class NoProtection:
    """Where there is no ECS agent."""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing is done."""
        yield

    async def run(self) -> None:
        """Nothing is done."""


class Refused(Exception):
    """The agent's refusal, in one line. `certain`: it says that nothing was changed."""

    def __init__(self, reason: str, *, certain: bool) -> None:
        super().__init__(reason)
        self.certain = certain


class TaskProtection:
    """Protection by the agent at `ECS_AGENT_URI`.

    `run` alone speaks with the agent. So taking the protection back is no part of the job, whose end the next leader
    may be waiting for.
    """

    def __init__(
        self,
        agent_uri: str,
        metrics: WorkMetrics,
        *,
        refresh: float = REFRESH,
        retry: float = RETRY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = agent_uri.rstrip("/") + "/task-protection/v1/state"
        self._metrics = metrics
        self._refresh = refresh
        self._retry = retry
        self._clock = clock
        self._holders = 0
        self._stirred = asyncio.Event()
        self._until: float | None = None
        """The protection may last until then, by our clock; None: there is none."""
        self._wish = False
        """What was put last."""
        self._again_at = clock()
        """When it is to be put again, if it is still wished."""
        self._complaint: str | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """For the length of the block the task should be protected."""
        self._holders += 1
        self._stirred.set()
        try:
            yield
        finally:
            self._holders -= 1
            self._stirred.set()

    async def run(self) -> None:
        """Protect while a block is held, and take it back when none is, until cancelled; then take it back."""
        async with http_session() as session:
            try:
                while True:
                    self._stirred.clear()
                    pause = await self._see_to_it(session)
                    try:
                        async with asyncio.timeout(pause):
                            await self._stirred.wait()
                    except TimeoutError:
                        pass  # time to put it again
            finally:
                if self._until is not None:
                    await self._tell(session, protect=False, limit=LAST_LIMIT)

    async def _see_to_it(self, session: aiohttp.ClientSession) -> float | None:
        """Put what is wished, if it is time; returns the seconds until it is time again, None for never."""
        wish = self._holders > 0
        if self._until is not None and self._clock() >= self._until:
            self._note(None)
        if not wish and self._until is None:
            return None
        if wish != self._wish or self._clock() >= self._again_at:
            well = await self._tell(session, protect=wish, limit=ANSWER_LIMIT)
            self._wish = wish
            self._again_at = self._clock() + (self._refresh if well else self._retry)
        return None if self._until is None and not wish else max(0.0, self._again_at - self._clock())

    async def _tell(self, session: aiohttp.ClientSession, *, protect: bool, limit: float) -> bool:
        """Put the state; returns whether it was accepted."""
        before = self._until
        if protect:  # now already: an answer that is lost may have been yes
            self._note(self._clock() + EXPIRES * 60)
        try:
            until = await self._put(session, protect=protect, limit=limit)
        except Refused as refusal:
            if protect and refusal.certain:
                self._note(before)
            self._metrics.protection_refused.inc()
            if str(refusal) != self._complaint:
                self._complaint = str(refusal)
                what = "is not protected from a scale-in" if protect else "stays protected for a while"
                logger.warning("this task %s: %s", what, refusal)
            return False
        self._complaint = None
        if not protect:
            self._note(None)
            logger.info("this task is protected no more")
        elif before is None:
            logger.info("this task is protected from a scale-in until %s", until)
        return True

    def _note(self, until: float | None) -> None:
        self._until = until
        self._metrics.protected.set(until is not None)

    async def _put(self, session: aiohttp.ClientSession, *, protect: bool, limit: float) -> object:
        """Put the state; returns when ECS says it ends."""
        body: dict[str, object] = {"ProtectionEnabled": protect}
        if protect:
            body["ExpiresInMinutes"] = EXPIRES
        try:
            async with session.put(self._url, json=body, timeout=aiohttp.ClientTimeout(total=limit)) as response:
                status, said = response.status, await read_body(response, LARGEST_ANSWER)
        except TimeoutError:
            raise Refused(f"the ECS agent did not answer in {limit:g} s", certain=False) from None
        except AnswerTooLarge as error:
            raise Refused(f"the ECS agent: {error}", certain=False) from None
        except (aiohttp.ClientError, OSError) as error:
            raise Refused(f"the ECS agent cannot be reached ({type(error).__name__})", certain=False) from None
        answer = _object(said)
        if failure := answer.get("failure"):  # with status 200
            raise Refused(f"ECS refuses: {_words(failure, 'Reason', 'Detail')}", certain=True)
        if status != 200:
            words = _words(answer.get("error"), "Code", "Message")
            raise Refused(f"the ECS agent answers {status} {words}".strip(), certain=status < 500)
        protection = answer.get("protection")
        if not isinstance(protection, dict) or protection.get("ProtectionEnabled") is not protect:
            raise Refused("the ECS agent's answer cannot be understood", certain=False)
        return protection.get("ExpirationDate")


def protection_by(agent_uri: str | None, metrics: WorkMetrics) -> Protection:
    """The agent's protection, or none where there is no agent."""
    return NoProtection() if agent_uri is None else TaskProtection(agent_uri, metrics)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _words(part: object, *names: str) -> str:
    """Those members of a part of the answer, in one line."""
    said = [str(part[name]) for name in names if part.get(name)] if isinstance(part, dict) else []
    return one_line(" ".join(": ".join(said).split()), WORDS_SHOWN)
