"""Leadership of a lease as its client sees it, and the client that keeps one long poll open for all of them."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from math import inf
from types import TracebackType
from typing import Self, TypeVar

from sidecar.client.sidecar_api import Answer, Poll, Sidecar
from sidecar.client.term import Grant, Term, TermOver
from sidecar.clock import elapsed

T = TypeVar("T")

TICK = 0.25
"""How often, in seconds, a leader looks at the clock: the event loop's own leaves out what a machine was suspended."""

_uniform = random.SystemRandom().uniform

logger = logging.getLogger("sidecar.client")


class Leadership:
    """What this process knows of its lead of one lease, computed from the clock at each look.

    `LeaseClient.leadership` makes it. `holder`, `state` and `instance_id` are what the sidecar last said, None while
    nothing is known: when it is not asked, or gives no valid answer.
    """

    def __init__(self, name: str, sidecar: Sidecar, poll: Poll, grant: Callable[[], Grant]) -> None:
        self.name = name
        self._sidecar = sidecar
        self._poll = poll
        self._new_grant = grant
        self._running = False
        self._term: Term | None = None
        self._outlived: int | None = None  # the last term that was looked at after its work had ended
        self._last_token: int | None = None  # a term is granted to one client: who can say its token is that one

    @property
    def is_leader(self) -> bool:
        """Whether this process leads now."""
        return self.remaining() > 0

    @property
    def token(self) -> int | None:
        """The fencing token of the term, None unless leading."""
        return self._term.token if self._term is not None and self.is_leader else None

    @property
    def holder(self) -> str | None:
        """Who holds the lease: an instance id, or an operator's word such as DISABLED."""
        return self._told.holder if self._told else None

    @property
    def state(self) -> str | None:
        """Where the lease stands for this task: `waiting`, `following`, `leading` and so on."""
        return self._told.state if self._told else None

    @property
    def instance_id(self) -> str | None:
        """The id of this task's sidecar."""
        return self._told.instance_id if self._told else None

    @property
    def _told(self) -> Answer | None:
        """The last answer as long as it stands: a grant until it runs out, another until a request fails."""
        answer = self._poll.answer
        if answer is None or answer.token is None:
            return answer if self._poll.trouble is None else None
        return answer if self.is_leader else None

    def remaining(self) -> float:
        """Seconds of leadership left, 0.0 unless leading."""
        return self._term.remaining() if self._term is not None else 0.0

    async def run(self, work: Callable[[Term], Awaitable[T]]) -> T:
        """Campaign from now on, and run `work(term)` whenever this process leads.

        The work is cancelled when its term is over: `stop_before` seconds before the deadline, or at once when the
        sidecar says so. Its end is awaited, the lease is resigned, and then campaigned for again. The term counts as
        what ended the work if it returns once cancelled, and if it raises `TermOver`. The work must not block the event
        loop: a blocking call belongs into `term.run_in_thread`.

        If the work returns or raises, or `run` is cancelled, then likewise the work's end is awaited and the lease
        resigned, and the result, the error or the cancellation passes on.

        Raises:
            RuntimeError: it runs already, the client is not open, or the work cancelled itself.
        """
        if self._running:
            raise RuntimeError(f"{self.name} is being campaigned for already")
        self._running = True
        try:
            while True:
                over = False
                try:
                    job = await self._lead(work)
                    if job is not None:
                        return job.result()
                    over = True
                finally:
                    term, self._term = self._term, None
                    await self._sidecar.resign(self.name, term.token if over and term is not None else None)
        finally:
            self._running = False
            self._poll.answer = None

    async def resign(self) -> None:
        """Tell the sidecar that no work runs and that the lease is not wanted; one that is gone is no error.

        `run` does it by itself.

        Raises:
            RuntimeError: work is running; cancel `run` instead.
        """
        if self._term is not None:
            raise RuntimeError(f"work is running under {self.name}: cancel its run() instead")
        await self._sidecar.resign(self.name)

    async def _lead(self, work: Callable[[Term], Awaitable[T]]) -> asyncio.Task[T] | None:
        """Wait for a term and run the work to its end. Returns the ended work, None if the term's end ended it."""
        term, grant = await self._begin()

        async def begin() -> T:
            return await work(term)

        job = asyncio.create_task(begin(), name=f"{self.name} {term.token}")
        asking = asyncio.create_task(self._prolong(term, grant))
        spare = asyncio.create_task(self._sidecar.knock(self.name))
        interruption: asyncio.CancelledError | None = None
        try:
            while not (job.done() or asking.done()) and (left := grant.working_time()) > 0:
                await asyncio.wait((job, asking), timeout=min(left, TICK), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError as cancelled:
            interruption = cancelled

        stopped = job.cancel()
        asking.cancel()  # to ask is to campaign: not while the work unwinds
        spare.cancel()
        complained = False
        while pending := [task for task in (job, asking, spare) if not task.done()]:
            try:
                await asyncio.wait(pending, timeout=None if complained else TICK)
            except asyncio.CancelledError as cancelled:
                interruption = cancelled
                job.cancel()
            if grant.overdue and not job.done():
                if not complained:
                    complained = True
                    self._log(
                        logging.ERROR, term, "the work was cancelled and runs on past its deadline; waiting for it"
                    )
                if interruption is not None:
                    term.threads.abandon()  # the process is to end, and its threads with it
        if grant.overdue and not complained:
            self._log(logging.ERROR, term, "the work blocked the event loop, or was frozen, past its deadline")
        self._log(logging.INFO, term, "the work has ended")

        error = None if job.cancelled() else job.exception()
        if isinstance(error, TermOver) and grant.remaining() <= 0:
            stopped, error = True, None
        grant.end()  # for whatever still looks at the term
        if error is not None:
            raise error
        if not asking.cancelled():
            asking.result()  # an error there is a bug, and not to be lost
        if interruption is not None:
            raise interruption
        if job.cancelled() and not stopped:
            raise RuntimeError(f"the work of {self.name} cancelled itself")
        return None if stopped else job

    async def _begin(self) -> tuple[Term, Grant]:
        """Campaign until there is a grant that leaves time to work in."""
        self._poll.afresh()
        while True:
            answer = await self._poll.next(lambda: inf, self._last_token)
            if answer is None or answer.token is None or answer.deadline is None:
                continue
            grant = self._new_grant()
            grant.extend(answer.deadline)
            if grant.working_time() > 0:
                self._term = Term(self.name, answer.token, answer.instance_id, grant.remaining, self._checked_late)
                self._last_token = answer.token
                self._log(logging.INFO, self._term, "leading; the work begins")
                return self._term, grant
            self._poll.afresh()  # that one came too late to be of use

    async def _prolong(self, term: Term, grant: Grant) -> None:
        """Let each answer prolong the grant; return when the term is over."""
        while grant.working_time() > 0:
            answer = await self._poll.next(grant.working_time, term.token)
            if answer is None:
                continue
            if answer.deadline is None or (answer.token, answer.instance_id) != (term.token, term.holder):
                grant.end()
                self._log(logging.INFO, term, f"the sidecar says that the term is over: it is {answer.state} now")
                return
            if not grant.extend(answer.deadline):
                return

    def _checked_late(self, token: int) -> None:
        """A term that is over was looked at, in whichever thread; the work itself does that while it is stopped."""
        if (self._term is None or self._term.token != token) and self._outlived != token:
            self._outlived = token
            text = "term.check() was called after the work had ended: a thread or task that the work started goes on"
            logger.error("%s, term %d: %s", self.name, token, text, extra={"lease": self.name, "token": token})

    def _log(self, level: int, term: Term, text: str) -> None:
        fields = {"lease": term.name, "token": term.token, "instance": term.holder}
        logger.log(level, "%s, term %d: %s", term.name, term.token, text, extra=fields)


class LeaseClient:
    """The sidecar at `url`, asked about its leases; one a process, an async context manager.

    Every `run` has to have ended before the context is left.

    Args:
        url: the sidecar's control listener.
        stop_before: so many seconds before the deadline of a grant that is not prolonged the work is stopped; at most
            a quarter of what is left of the grant.
        clock: gives seconds that never step; deadlines are counted by it.
        uniform: as `random.uniform`; spreads the pauses after requests that got no valid answer.

    Raises:
        ValueError: the address is none, or `stop_before` is negative.
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
            raise ValueError(f"stop_before is not a number of seconds from 0: {stop_before!r}")
        self._sidecar = Sidecar(url, clock)
        self._grant = lambda: Grant(clock, stop_before)
        self._uniform = uniform
        self._leaderships: dict[str, Leadership] = {}

    def leadership(self, name: str) -> Leadership:
        """The lead of the lease `name`: the same object for the same name."""
        if name not in self._leaderships:
            poll = Poll(name, self._sidecar, self._uniform)
            self._leaderships[name] = Leadership(name, self._sidecar, poll, self._grant)
        return self._leaderships[name]

    async def __aenter__(self) -> Self:
        await self._sidecar.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._sidecar.close()
