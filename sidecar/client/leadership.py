"""The leadership of a lease as its client sees it, and the client of one sidecar."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from math import inf
from types import TracebackType
from typing import Self, TypeVar

from runtime.clock import elapsed
from sidecar.client.reports import PastTerm, SidecarReport
from sidecar.client.sidecar_api import Answer, Poll, SidecarApi
from sidecar.client.term import Grant, Term, says_only_that_a_term_is_over

T = TypeVar("T")

TICK = 0.25
"""Seconds between a leader's checks of the clock; the event loop's timers stop while the machine is suspended."""
UNWIND = 0.05
"""Seconds for which a held `/is-leader` request stays open while the work unwinds.

Most work ends earlier. Then the sidecar answers the request when the resign arrives, and the client need not close the
request's connection before the resign.
"""

_uniform = random.SystemRandom().uniform

logger = logging.getLogger("sidecar.client")


class Leadership:
    """The leadership of one lease by this process, computed from the clock at each access.

    Any thread may read the properties and call `remaining`. All other methods belong to the event loop of `run`.

    `LeaseClient.leadership` makes this object. `holder`, `state` and `instance_id` come from the sidecar's last answer.
    They are None while the client does not ask the sidecar. When a grant ends, or when a request fails while the client
    has no grant, they become None until the next answer.
    """

    def __init__(self, name: str, sidecar: SidecarApi, poll: Poll, grant: Callable[[], Grant]) -> None:
        self.name = name
        self._sidecar = sidecar
        self._poll = poll
        self._new_grant = grant
        self._running = False
        self._term: Term | None = None
        self._late_check: int | None = None  # the last term for which a late check was reported
        self._last_token: int | None = None  # proves to a restarted sidecar that the term was granted to this client

    @property
    def is_leader(self) -> bool:
        """Whether this process leads now."""
        return self.remaining() > 0

    @property
    def token(self) -> int | None:
        """The fencing token of the term; None unless leading."""
        term = self._term  # read once: the event loop or the clock may end the term during this access
        return term.token if term is not None and term.remaining() > 0 else None

    @property
    def holder(self) -> str | None:
        """The holder of the lease: an instance id, or an operator's word such as DISABLED."""
        return answer.holder if (answer := self._answer) else None

    @property
    def state(self) -> str | None:
        """The state of the lease for this task: `waiting`, `following`, `leading` and so on."""
        return answer.state if (answer := self._answer) else None

    @property
    def instance_id(self) -> str | None:
        """The id of this task's sidecar."""
        return answer.instance_id if (answer := self._answer) else None

    @property
    def _answer(self) -> Answer | None:
        """The last answer while it is valid. A grant is valid until its end, any other answer until a request fails."""
        answer = self._poll.answer
        if answer is None or answer.token is None:
            return answer if self._poll.trouble is None else None
        return answer if self.is_leader else None

    def remaining(self) -> float:
        """Seconds of leadership left; 0.0 unless leading."""
        term = self._term
        return term.remaining() if term is not None else 0.0

    async def run(self, work: Callable[[Term], Awaitable[T]]) -> T:
        """Campaign from now on, and run `work(term)` whenever this process leads.

        `run` cancels the work when its term is over: `stop_before` seconds before the deadline, or at once when the
        sidecar reports the end of the term. It awaits the end of the work, resigns the lease, and campaigns again. Work
        that returns after its cancellation counts as ended by the term. So does work that raises `TermOver`, or an
        exception group that contains only `TermOver`, once the term is over. The work must not block the event loop:
        blocking calls belong in `term.run_in_thread`.

        When the work returns or raises by itself, or `run` is cancelled, `run` also awaits the end of the work and
        resigns. It then returns the result, or raises the error or the cancellation.

        Raises:
            RuntimeError: `run` is active already, the client is not open, or the work cancelled itself.
        """
        if self._running:
            raise RuntimeError(f"run() is already active for {self.name}")
        self._running = True
        try:
            while True:
                over = False
                asking: asyncio.Task[bool] | None = None
                spare: asyncio.Task[None] | None = None
                try:
                    term, grant = await self._begin()
                    job = self._start(work, term)
                    asking = asyncio.create_task(self._extend(term, grant))
                    spare = asyncio.create_task(self._sidecar.open_spare_connection(self.name))
                    if await self._lead(term, grant, job, asking):
                        return job.result()
                    over = True
                finally:
                    ended, self._term = self._term, None
                    await self._resign(ended, over, asking, spare)
        finally:
            self._running = False
            self._poll.answer = None

    async def resign(self) -> None:
        """Report to the sidecar that no work runs and that the lease is not wanted.

        `run` resigns by itself. It is not an error if the sidecar has gone.

        Raises:
            RuntimeError: `run` is active (cancel `run` instead), or the client is not open.
        """
        if self._running:  # even between two terms: the answer to the last request may be a grant that is not read yet
            raise RuntimeError(f"run() is active for {self.name}: cancel run() instead")
        await self._sidecar.resign(self.name)

    async def history(self) -> list[PastTerm]:
        """The last terms of the lease in all tasks, newest first.

        The sidecar asks Redis, at most once a second. The request does not count as demand.

        Raises:
            Unknown: the sidecar gave no valid answer: it is down or too old for a history, or Redis cannot be used.
            RuntimeError: the client is not open.
        """
        return await self._sidecar.history(self.name)

    def _start(self, work: Callable[[Term], Awaitable[T]], term: Term) -> asyncio.Task[T]:
        """Start the work, and log its start after its first step."""

        async def begin() -> T:
            return await work(term)

        job = asyncio.create_task(begin(), name=f"{self.name} {term.token}")
        self._log_next(term, "leading; the work begins", "work_began")
        return job

    async def _resign(
        self, term: Term | None, over: bool, asking: asyncio.Task[bool] | None, spare: asyncio.Task[None] | None
    ) -> None:
        """Resign the term that is over, or the lease; then end the tasks of the poll and the spare connection.

        The request that the sidecar holds stays open, because the sidecar answers it when the resign arrives. If the
        client closed the request's connection first, the resign would arrive later, and the client would need a new
        connection.
        """
        try:
            token = term.token if over and term is not None else None
            resign = self._sidecar.start_resign(self.name, token)
            if term is not None:
                self._log_next(term, "the work has ended", "work_ended")
            await self._sidecar.await_resign(self.name, token, resign, asking if self._poll.is_asking else None)
        finally:
            beside = [task for task in (asking, spare) if task is not None]
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _lead(self, term: Term, grant: Grant, job: asyncio.Task[T], asking: asyncio.Task[bool]) -> bool:
        """Await the end of the work. Returns whether the work ended by itself; False if the term stopped it."""
        interruption: asyncio.CancelledError | None = None
        try:
            while not (job.done() or asking.done()) and (left := grant.working_time()) > 0:
                await asyncio.wait((job, asking), timeout=min(left, TICK), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError as cancelled:
            interruption = cancelled

        # At its end `asyncio.run` cancels every task, so `asking` may be cancelled while the work still runs.
        heard = asking.done() and not asking.cancelled() and asking.exception() is None
        reported_by_sidecar = heard and asking.result()
        if not (job.done() or reported_by_sidecar or interruption is not None):
            text = "the sidecar has not extended the grant in time: the work stops"
            self._log(logging.INFO, term, text, "grant_over")
        self._poll.stopped = True  # a request while the work unwinds would campaign
        # A loop that cancels every task has cancelled the work too. A second cancellation would cut the work's clean-up
        # short. Only such a loop can have cancelled `asking` here. `job.cancelling()` alone is not enough: it also
        # counts an earlier cancellation that the work has swallowed.
        at_loop_end = interruption is not None and asking.cancelling() > 0 and job.cancelling() > 0
        stopped = at_loop_end or job.cancel()
        dropped = reported = False
        while not job.done():
            try:
                await asyncio.wait((job,), timeout=None if reported else TICK if dropped else UNWIND)
            except asyncio.CancelledError as cancelled:
                interruption = cancelled
                job.cancel()
            if not (job.done() or dropped):
                dropped = True
                asking.cancel()
            if grant.overdue and not job.done():
                if not reported:
                    reported = True
                    self._log(
                        logging.ERROR,
                        term,
                        "the work was cancelled but still runs after its deadline; waiting for it",
                        "work_overdue",
                    )
                if interruption is not None:
                    term.threads.abandon()  # the process is about to end, and its threads with it
        if grant.overdue and not reported:
            text = "the work blocked the event loop, or was frozen, past its deadline"
            self._log(logging.ERROR, term, text, "work_overdue")

        error = None if job.cancelled() else job.exception()
        if says_only_that_a_term_is_over(error) and grant.remaining() <= 0:
            stopped, error = True, None
        grant.end()  # for code that still looks at the term
        if error is not None:
            raise error
        if asking.done() and not asking.cancelled():
            asking.result()  # raises an error of the polling task, which is a bug
        if interruption is not None:
            raise interruption
        if job.cancelled() and not stopped:
            raise RuntimeError(f"the work of {self.name} cancelled itself")
        return not stopped

    async def _begin(self) -> tuple[Term, Grant]:
        """Campaign until a grant leaves time to work."""
        self._poll.stopped = False
        self._poll.forget_version()
        while True:
            answer = await self._poll.next(lambda: inf, self._last_token)
            if answer is None or answer.token is None or answer.deadline is None:
                continue
            grant = self._new_grant()
            grant.extend(answer.deadline)
            if grant.working_time() > 0:
                self._term = Term(
                    self.name,
                    answer.token,
                    answer.instance_id,
                    grant.remaining,
                    self._report_late_check,
                    grant_left=grant.left,
                )
                self._last_token = answer.token
                return self._term, grant
            self._poll.forget_version()  # this grant came too late

    async def _extend(self, term: Term, grant: Grant) -> bool:
        """Extend the grant with each answer until the term is over; returns whether the sidecar reported the end."""
        while grant.working_time() > 0:
            answer = await self._poll.next(grant.working_time, term.token)
            if self._poll.stopped:
                break
            if answer is None:
                continue
            if answer.deadline is None or (answer.token, answer.instance_id) != (term.token, term.holder):
                grant.end()
                text = f"the sidecar reports the end of the term: the state is {answer.state}"
                self._log(logging.INFO, term, text, "term_over")
                return True
            if not grant.extend(answer.deadline):
                break
        return False

    def _report_late_check(self, token: int) -> None:
        """Log once that code checks a term after its work has ended. A check before the end of the work is not logged.

        Any thread may call this method.
        """
        term = self._term
        if (term is None or term.token != token) and self._late_check != token:
            self._late_check = token
            text = "term.check() was called after the work had ended: a thread or task that the work started still runs"
            logger.error("%s, term %d: %s", self.name, token, text, extra={"lease": self.name, "token": token})

    def _log_next(self, term: Term, text: str, event: str) -> None:
        """Write a log line in the next turn of the event loop, after the first step of the tasks just started."""
        asyncio.get_running_loop().call_soon(self._log, logging.INFO, term, text, event)

    def _log(self, level: int, term: Term, text: str, event: str) -> None:
        fields = {"lease": term.name, "token": term.token, "instance": term.holder, "event": event}
        logger.log(level, "%s, term %d: %s", term.name, term.token, text, extra=fields)


class LeaseClient:
    """The client of the sidecar at `url`, an async context manager. A process needs only one client.

    Every `run` must have ended before the context ends.

    Args:
        url: the sidecar's control listener.
        stop_before: seconds before the deadline of a grant at which the work is stopped, unless the grant is extended;
            at most a quarter of the longest grant of the term.
        clock: gives seconds that never step; deadlines are on this clock.
        uniform: draws a number between two bounds, like `random.uniform`; spreads the pauses after requests without a
            valid answer.

    Raises:
        ValueError: the URL is invalid, or `stop_before` is negative.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:4040",
        *,
        stop_before: float = 0.5,
        clock: Callable[[], float] = elapsed,
        uniform: Callable[[float, float], float] = _uniform,
    ) -> None:
        if not 0 <= stop_before < inf:
            raise ValueError(f"stop_before is not a number of seconds of at least 0: {stop_before!r}")
        self._sidecar = SidecarApi(url, clock)
        self._grant = lambda: Grant(clock, stop_before)
        self._uniform = uniform
        self._leaderships: dict[str, Leadership] = {}

    def leadership(self, name: str) -> Leadership:
        """The leadership of the lease `name`: the same object for the same name."""
        if name not in self._leaderships:
            poll = Poll(name, self._sidecar, self._uniform)
            self._leaderships[name] = Leadership(name, self._sidecar, poll, self._grant)
        return self._leaderships[name]

    async def status(self) -> SidecarReport:
        """The sidecar's own view of all its leases. The request does not count as demand.

        Raises:
            Unknown: the sidecar gave no valid answer.
            RuntimeError: the client is not open.
        """
        return await self._sidecar.status()

    async def __aenter__(self) -> Self:
        await self._sidecar.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._sidecar.close()
