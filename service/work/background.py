"""The background work: the tracker and the scheduler, each only while this process leads its lease."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from service.database.connection import StaleTerm, StoreError
from service.database.write_watch import WriteWatch
from service.prices import PricesUnavailable
from sidecar.client import Leadership, LeaseClient, Term, TermOver

TRACKER_LEASE = "background_services"
SCHEDULER_LEASE = "daily_scheduler"

Work = Callable[[Term], Awaitable[object]]

PAUSE = 1.0, 30.0
"""Seconds from a failure of the work until its lease is campaigned for again: at first, and at most."""
APART = 0.05
"""Seconds that one work may take to end before the next one is told to."""
STEADY = 60.0
"""Seconds of work after which a failure counts as the first again."""

logger = logging.getLogger(__name__)


class NothingCommitted(Exception):
    """The term ended because nothing that was due could be committed."""


async def _never() -> None:
    await asyncio.Event().wait()


class Background:
    """Runs each work under its own lease, and starts work that failed again, after a pause.

    Failed work never leaves a leader behind that does nothing: its lease is resigned first, and not campaigned for
    during the pause, so that another task may take it. A leader that commits nothing, though a write is due, resigns
    likewise: see `service.database.write_watch`.

    Args:
        client: asks the sidecar.
        pause: seconds from a failure to the next attempt, at first and at most.
        uniform: as `random.uniform`.
        clock: seconds that never step.
        writes: what the work's store knows of its writes.
        trouble_for: seconds for which the database has been known to take no writes, 0 while it takes them.
        recovery: returns when a database that took no writes takes them again.
    """

    def __init__(
        self,
        client: LeaseClient,
        *,
        pause: tuple[float, float] = PAUSE,
        uniform: Callable[[float, float], float] = random.uniform,
        clock: Callable[[], float] = time.monotonic,
        writes: WriteWatch | None = None,
        trouble_for: Callable[[], float] = lambda: 0.0,
        recovery: Callable[[], Coroutine[Any, Any, None]] = _never,
    ) -> None:
        self.leaderships: Mapping[str, Leadership] = {
            name: client.leadership(name) for name in (TRACKER_LEASE, SCHEDULER_LEASE)
        }
        self._pause = pause
        self._uniform = uniform
        self._clock = clock
        self._writes = writes or WriteWatch()
        self._trouble_for = trouble_for
        self._recovery = recovery

    async def run(self, works: Mapping[str, Work]) -> None:
        """Run each work under the lease that names it, until cancelled; then all have ended and resigned.

        The first in `works` resigns first: its hand-over does not wait for the others' calls to Redis.
        """
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(self._keep_running(self.leaderships[lease], work), name=lease)
                for lease, work in works.items()
            ]
            try:
                await asyncio.wait(running)
            finally:
                for each in running:
                    each.cancel()
                    await asyncio.wait((each,), timeout=APART)

    async def _keep_running(self, leadership: Leadership, work: Work) -> None:
        first, most = self._pause
        pause = first
        while True:
            began = self._clock()
            about = {"lease": leadership.name, "instance": leadership.instance_id}
            left_to_others = False
            try:
                await leadership.run(partial(self._watched, work))
                logger.error("the work returned; it is started again", extra=about)
            except (TermOver, StaleTerm) as over:
                logger.warning("the work stopped: %s", over, extra=about)
            except NothingCommitted as stopped:
                left_to_others = True
                logger.warning("the lease is left to another task: %s", stopped, extra=about)
            except (StoreError, PricesUnavailable) as error:
                logger.warning("the work failed: %s", error, extra=about)
            except Exception:  # whatever is wrong with one work, the other and the API go on
                logger.exception("the work failed", extra=about)
            if left_to_others:
                await self._rest(self._writes.of(leadership.name).pause, self._recovery)
                continue
            if self._clock() - began > STEADY:
                pause = first
            await self._rest(pause)
            pause = min(pause * 2, most)

    async def _rest(self, seconds: float, until: Callable[[], Coroutine[Any, Any, None]] = _never) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds * self._uniform(0.5, 1.0)):
                await until()

    async def _watched(self, work: Work, term: Term) -> None:
        """Do the work until the term is over, or nothing that was due has been committed for long.

        Raises:
            NothingCommitted: see there.
        """
        writes = self._writes.of(term.name)
        writes.begin_term(self._trouble_for())
        # A task of its own: a task group that failed leaves a cancellation counted, which spoils asyncio.timeout.
        job = asyncio.create_task(_begin(work, term), name=f"work of {term.name}")
        timer = _Timer(job)
        writes.on_change = lambda: timer.set(writes.left())
        try:
            await job
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if not timer.expired or this is None or this.cancelling():
                raise
            seconds = writes.give_up()
            raise NothingCommitted(f"nothing was committed for {seconds:.0f} s, though a write was due") from None
        finally:
            writes.on_change = lambda: None
            timer.set(None)


class _Timer:
    """Cancels a task after so many seconds, unless it is set again."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task
        self._handle: asyncio.TimerHandle | None = None
        self.expired = False

    def set(self, seconds: float | None) -> None:
        """Let it expire in so many seconds; None: not at all."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self._expire)

    def _expire(self) -> None:
        self.expired = True
        self._task.cancel()


async def _begin(work: Work, term: Term) -> None:
    await work(term)
