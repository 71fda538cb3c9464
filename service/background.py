"""The background work: the tracker and the scheduler, each only while this process leads its lease."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping

from service.database import StaleTerm, StoreError
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


class Background:
    """Runs each work under its own lease, and starts work that failed again, after a pause.

    Failed work never leaves a leader behind that does nothing: its lease is resigned first, and not campaigned for
    during the pause, so that another task may take it.
    """

    def __init__(
        self,
        client: LeaseClient,
        *,
        pause: tuple[float, float] = PAUSE,
        uniform: Callable[[float, float], float] = random.uniform,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.leaderships: Mapping[str, Leadership] = {
            name: client.leadership(name) for name in (TRACKER_LEASE, SCHEDULER_LEASE)
        }
        self._pause = pause
        self._uniform = uniform
        self._clock = clock

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
            try:
                await leadership.run(work)
                logger.error("the work returned; it is started again", extra=about)
            except (TermOver, StaleTerm) as over:
                logger.warning("the work stopped: %s", over, extra=about)
            except (StoreError, PricesUnavailable) as error:
                logger.warning("the work failed: %s", error, extra=about)
            except Exception:  # whatever is wrong with one work, the other and the API go on
                logger.exception("the work failed", extra=about)
            if self._clock() - began > STEADY:
                pause = first
            await asyncio.sleep(pause * self._uniform(0.5, 1.0))
            pause = min(pause * 2, most)
