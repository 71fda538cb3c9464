"""A client's belief that it leads: the grant, which the clock ends, and the term, which the work receives."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf
from typing import Self, TypeVar

from sidecar.client.work_thread import WorkThreads

T = TypeVar("T")


class TermOver(Exception):
    """The term is over: the work may do nothing more under it."""


def says_only_that_a_term_is_over(error: BaseException | None) -> bool:
    """Whether the error is `TermOver`, or an exception group that contains only `TermOver`; task groups raise these."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(TermOver)[1] is None
    return isinstance(error, TermOver)


@dataclass(frozen=True, slots=True)
class Term:
    """One term, which the work receives: the lease's name, the fencing token, and the instance id of the holder.

    `remaining()` gives the seconds that are left, 0.0 once the term is over. A term that is over stays over. Any thread
    may call `remaining` and `check`.
    """

    name: str
    token: int
    holder: str
    remaining: Callable[[], float] = field(repr=False, compare=False)
    on_late_check: Callable[[int], None] = field(default=lambda _: None, repr=False, compare=False)
    """A callback for each `check` that finds the term over; it gets the token."""
    threads: WorkThreads = field(default_factory=WorkThreads, repr=False, compare=False)
    """The threads of `run_in_thread`."""
    grant_left: Callable[[], float] = field(default=lambda: 0.0, repr=False, compare=False)
    """The seconds until the last grant runs out, even if the term ended before: the time in which work has to end."""

    def check(self) -> None:
        """Return if the term is not over; the work calls this between two steps.

        Raises:
            TermOver: the term is over.
        """
        if self.remaining() <= 0:
            self.on_late_check(self.token)
            raise TermOver(f"term {self.token} of {self.name} is over")

    async def run_in_thread(self, job: Callable[[Self], T]) -> T:
        """Run the blocking `job(term)` in its own thread, and return only when the thread has ended.

        A thread cannot be interrupted, so the job has to call `term.check()` between two steps. The job's term is over
        as soon as the work is cancelled. `Leadership.run` awaits the end of the job before it resigns.

        A job that still runs at the deadline of its term is logged as an error: another task may lead at the same time.
        `run` still waits for the job, unless `run` itself was cancelled, as at the end of the process. In that case the
        thread ends with the process.

        `asyncio.to_thread` is no substitute: there the work ends at its cancellation, but the thread still runs while
        the next leader works.

        Raises:
            TermOver: the term was over before the job began, or the job raised it.
            asyncio.CancelledError: the work was cancelled while the job ran.
        """
        self.check()
        cancelled = threading.Event()
        term = replace(self, remaining=lambda: 0.0 if cancelled.is_set() else self.remaining())
        try:
            return await self.threads.run(lambda: job(term), f"{self.name} {self.token}", cancelled.set)
        except (TermOver, BaseExceptionGroup) as error:
            if cancelled.is_set() and says_only_that_a_term_is_over(error):
                raise asyncio.CancelledError from None  # the reason why the job had to stop
            raise


class Grant:
    """The time until which the client believes that it leads. No later answer revives a grant that is over.

    Args:
        clock: gives seconds that never step.
        stop_before: seconds before the deadline at which the work is stopped. They are limited to a quarter of the
            term's longest grant, because a short grant would otherwise leave no time to work. The length of a grant is
            the time from the arrival of its answer to its deadline. The seconds never shrink: while Redis is
            unreachable, every answer of the sidecar has the same deadline, and less of the grant is left each time.
    """

    def __init__(self, clock: Callable[[], float], stop_before: float) -> None:
        self._clock = clock
        self._stop_before = stop_before
        self._deadline = inf
        self._reserve = 0.0
        self._stop_at = inf
        self._ended = False

    def extend(self, deadline: float) -> bool:
        """Set the deadline, which may be earlier than the last one; returns False if the grant is already over."""
        now = self._clock()
        if self._ended or now >= self._deadline:
            return False
        self._deadline = deadline
        self._reserve = max(self._reserve, min(self._stop_before, max(deadline - now, 0.0) / 4))
        self._stop_at = deadline - self._reserve
        return True

    def end(self) -> None:
        """End the grant now, whatever is left of it."""
        self._ended = True

    def left(self) -> float:
        """Seconds until the last deadline, even if the grant was ended before."""
        return max(self._deadline - self._clock(), 0.0)

    @property
    def overdue(self) -> bool:
        """Whether the last deadline has passed, even if the grant was ended before."""
        return self._clock() >= self._deadline

    def remaining(self) -> float:
        """Seconds for which the client still believes that it leads."""
        return 0.0 if self._ended else max(self._deadline - self._clock(), 0.0)

    def working_time(self) -> float:
        """Seconds until the work must be stopped."""
        return 0.0 if self._ended else max(self._stop_at - self._clock(), 0.0)
