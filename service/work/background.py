"""Runs the tracker and the scheduler, each only while this process leads its lease."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from runtime.backoff import Backoff
from service.database.connection import StaleTerm, StoreError
from service.database.write_watch import WriteWatch
from service.prices import PricesUnavailable
from sidecar.client import Leadership, LeaseClient, Term, TermOver

TRACKER_LEASE = "background_services"
SCHEDULER_LEASE = "daily_scheduler"

Work = Callable[[Term], Awaitable[object]]

RESTART_PAUSE = 1.0, 30.0
"""Seconds from a failure of the work to the next campaign for its lease: first pause and longest pause."""
STOP_STAGGER = 0.05
"""Maximum wait, in seconds, for the end of one task before the next task is stopped."""
HEALTHY_AFTER = 60.0
"""Seconds without a failure after which the pauses start again with the first pause."""

logger = logging.getLogger(__name__)


class NothingCommitted(Exception):
    """The term ended because due writes stayed uncommitted for too long."""


async def _never() -> None:
    await asyncio.Event().wait()


class Background:
    """Runs each `Work` under its own lease, and restarts failed work after a pause.

    When work fails, this process resigns the lease and does not campaign during the pause, so that another task may
    lead. A leader that commits nothing, though a write is due, resigns too: see `service.database.write_watch`.

    Args:
        client: asks the sidecar.
        pause: seconds from a failure to the next attempt: first pause and longest pause.
        uniform: draws a number between two bounds, like `random.uniform`.
        clock: monotonic seconds.
        writes: records whether the writes of the work succeed.
        trouble_for: returns the seconds since the database stopped taking writes; 0 while it takes writes.
        recovery: waits until the database takes writes again.
    """

    def __init__(
        self,
        client: LeaseClient,
        *,
        pause: tuple[float, float] = RESTART_PAUSE,
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
        """Run each `Work` under the lease that is its key, until cancelled.

        On return all work has ended and its leases are resigned. The first work in `works` resigns first, so its
        hand-over does not wait for calls to Redis about the other leases.
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
                    await asyncio.wait((each,), timeout=STOP_STAGGER)

    async def _keep_running(self, leadership: Leadership, work: Work) -> None:
        backoff = Backoff(*self._pause, uniform=self._uniform)
        while True:
            began = self._clock()
            fields: dict[str, object] = {"lease": leadership.name}
            leave_to_others = False
            try:
                await leadership.run(partial(self._run_watched, work, fields))
                text = "the work returned; it is started again after a pause"
                logger.error(text, extra=fields | {"event": "work_failed"})
            except (TermOver, StaleTerm) as over:
                logger.warning("the work stopped: %s", over, extra=fields | {"event": "work_stopped"})
            except NothingCommitted as stopped:
                leave_to_others = True
                logger.warning("the lease is left to another task: %s", stopped, extra=fields | {"event": "lease_left"})
            except (StoreError, PricesUnavailable) as error:
                logger.warning("the work failed: %s", error, extra=fields | {"event": "work_failed"})
            except Exception:  # a fault of one `Work` must not end the other or the API
                logger.exception("the work failed", extra=fields | {"event": "work_failed"})
            if leave_to_others:
                await self._pause_until_recovery(self._writes.of(leadership.name).pause)
                continue
            if self._clock() - began > HEALTHY_AFTER:
                backoff.reset()
            await asyncio.sleep(backoff.next())

    async def _pause_until_recovery(self, seconds: float) -> None:
        """Wait until the database takes writes again, for about `seconds` at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds * self._uniform(0.5, 1.0)):
                await self._recovery()

    async def _run_watched(self, work: Work, fields: dict[str, object], term: Term) -> None:
        """Run the work until the term is over, or until due writes have stayed uncommitted for too long.

        `fields` are the fields of the log lines about the work; this method adds the term's.

        Raises:
            NothingCommitted: due writes stayed uncommitted for too long.
        """
        fields |= {"token": term.token, "instance": term.holder}
        writes = self._writes.of(term.name)
        writes.begin_term(self._trouble_for())
        # The work has its own task: after a failed task group, a task's `cancelling()` stays above 0, and then
        # asyncio.timeout does not work in that task.
        job = asyncio.create_task(_begin(work, term), name=f"work of {term.name}")
        timer = _Timer(job)
        writes.on_change = lambda: timer.set(writes.remaining())
        try:
            await job
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if not timer.expired or this is None or this.cancelling():
                raise
            seconds = writes.give_up()
            raise NothingCommitted(f"nothing was committed for {seconds:.0f} s although a write was due") from None
        finally:
            writes.on_change = lambda: None
            timer.set(None)


class _Timer:
    """Cancels a task when a time has passed."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task
        self._handle: asyncio.TimerHandle | None = None
        self.expired = False

    def set(self, seconds: float | None) -> None:
        """Set the timer to `seconds` from now; None stops it."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self._expire)

    def _expire(self) -> None:
        self.expired = True
        self._task.cancel()


async def _begin(work: Work, term: Term) -> None:
    await work(term)
