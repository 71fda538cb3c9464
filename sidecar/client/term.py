"""A client's belief that it leads: a grant that the clock ends, and the term that is handed to the work."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf
from typing import Self, TypeVar

from sidecar.client.work_thread import WorkThreads

T = TypeVar("T")


class TermOver(Exception):
    """The term is over: what it allowed may not be done any more."""


@dataclass(frozen=True, slots=True)
class Term:
    """One tenure, handed to the work: the lease's name, the fencing token, and the instance id of the holder.

    `remaining()` gives the seconds that are left of it, 0.0 once it is over. Once over it stays so. `remaining` and
    `check` may be called in any thread.
    """

    name: str
    token: int
    holder: str
    remaining: Callable[[], float] = field(repr=False, compare=False)
    on_late_check: Callable[[int], None] = field(default=lambda _: None, repr=False, compare=False)
    """Called with the token by each `check` that finds the term over."""
    threads: WorkThreads = field(default_factory=WorkThreads, repr=False, compare=False)
    """What `run_in_thread` runs."""

    def check(self) -> None:
        """Call it between two steps of the work.

        Raises:
            TermOver: this term is over.
        """
        if self.remaining() <= 0:
            self.on_late_check(self.token)
            raise TermOver(f"term {self.token} of {self.name} is over")

    async def run_in_thread(self, job: Callable[[Self], T]) -> T:
        """Run the blocking `job(term)` in a thread of its own, and return only when the thread has ended.

        A thread cannot be interrupted, so the job has to call `term.check()` between two steps. The term that the job
        gets is over as soon as the work is cancelled. The job's end is awaited before the lease is resigned.

        A job that still runs at the deadline of its term is logged as an error: another task may lead beside it. It is
        waited for all the same, unless `Leadership.run` was cancelled, as at the end of the process. Then it is left
        behind, and ends with the process.

        With `asyncio.to_thread` the work would end at its cancellation, and the thread would go on beside the next
        leader.

        Raises:
            TermOver: the term was over before the job began, or the job raised it.
            asyncio.CancelledError: the work was cancelled while the job ran.
        """
        self.check()
        cancelled = threading.Event()
        term = replace(self, remaining=lambda: 0.0 if cancelled.is_set() else self.remaining())
        try:
            return await self.threads.run(lambda: job(term), f"{self.name} {self.token}", cancelled.set)
        except TermOver:
            if cancelled.is_set():
                raise asyncio.CancelledError from None  # the reason why the job had to stop
            raise


class Grant:
    """Until when a term is believed. Once over it stays so: no later answer revives it.

    Args:
        clock: gives seconds that never step.
        stop_before: so many seconds before the deadline the work is told to stop; never more than a quarter of what is
            left at an extension, or a short grant would leave no time to work in.
    """

    def __init__(self, clock: Callable[[], float], stop_before: float) -> None:
        self._clock = clock
        self._stop_before = stop_before
        self._deadline = inf
        self._stop_at = inf
        self._ended = False

    def extend(self, deadline: float) -> bool:
        """Believe until `deadline`, which may be sooner than the last; False if the term is over already."""
        now = self._clock()
        if self._ended or now >= self._deadline:
            return False
        self._deadline = deadline
        self._stop_at = deadline - min(self._stop_before, max(deadline - now, 0.0) / 4)
        return True

    def end(self) -> None:
        """The term is over, whatever is left of the grant."""
        self._ended = True

    @property
    def overdue(self) -> bool:
        """Whether the deadline that was last granted has passed, be the term over before or not."""
        return self._clock() >= self._deadline

    def remaining(self) -> float:
        """Seconds for which the term may be believed."""
        return 0.0 if self._ended else max(self._deadline - self._clock(), 0.0)

    def working_time(self) -> float:
        """Seconds until the work has to be told to stop."""
        return 0.0 if self._ended else max(self._stop_at - self._clock(), 0.0)
