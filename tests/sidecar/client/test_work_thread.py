"""Work in threads: the client resigns once the thread has ended.

At the end of the process, the client waits for the thread until the deadline at most. A thread that outlives its term
is reported.
"""

import asyncio
import logging
import signal
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from ops.local.servers import RedisServer
from sidecar.client import LeaseClient, Term, TermOver
from tests.support.hostile_sidecar import NAME, Clock, FakeSidecar
from tests.support.processes import Process, RealSidecar, get_json, killed_at_exit
from tests.support.waiting import eventually


class Job:
    """A blocking job that checks its term, unless it is `stubborn`."""

    def __init__(self, events: list[str], *, stubborn: bool = False) -> None:
        self.began = threading.Event()
        self.release = threading.Event()
        self._events = events
        self._stubborn = stubborn

    def __call__(self, term: Term) -> None:
        self.began.set()
        try:
            while not self.release.wait(0.005):
                if not self._stubborn:
                    term.check()
        finally:
            self._events.append("thread ends")


@asynccontextmanager
async def campaigning(sidecar: FakeSidecar, job: Job, clock: Clock) -> AsyncIterator[asyncio.Task[None]]:
    async def work(term: Term) -> None:
        await term.run_in_thread(job)

    await sidecar.elect(7)
    async with LeaseClient(sidecar.url, clock=clock) as client:
        run = asyncio.create_task(client.leadership(NAME).run(work))
        await eventually(job.began.is_set)
        try:
            yield run
        finally:
            job.release.set()
            run.cancel()
            with suppress(asyncio.CancelledError):
                await run


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


async def test_a_thread_ends_before_the_resign_when_its_term_ends(sidecar: FakeSidecar) -> None:
    async with campaigning(sidecar, Job(sidecar.events), Clock()):
        await sidecar.follow()
        await eventually(lambda: "resign" in sidecar.events)
    assert sidecar.events[:2] == ["thread ends", "resign"]


async def test_a_thread_ends_before_the_resign_when_run_is_cancelled(sidecar: FakeSidecar) -> None:
    """The grant is still valid, but the thread's term has ended."""
    async with campaigning(sidecar, Job(sidecar.events), Clock()) as run:
        run.cancel()
        await asyncio.wait((run,), timeout=20)
        assert run.cancelled()
        assert sidecar.events == ["thread ends", "resign"]


async def test_a_thread_past_its_deadline_is_reported_and_awaited_without_new_requests(
    sidecar: FakeSidecar, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    job = Job(sidecar.events, stubborn=True)
    async with campaigning(sidecar, job, clock):
        clock.now += sidecar.grant  # the clock stood still until now, so no answer has moved the deadline
        await eventually(lambda: errors(caplog))
        assert "still runs after its deadline" in errors(caplog)[0]
        asked = len(sidecar.polls)
        await asyncio.sleep(0.3)
        assert (len(sidecar.polls), sidecar.events) == (asked, [])
        job.release.set()
        await eventually(lambda: "resign" in sidecar.events)
    assert sidecar.events[:2] == ["thread ends", "resign"]


async def test_the_process_waits_for_a_thread_until_its_deadline(
    sidecar: FakeSidecar, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    async with campaigning(sidecar, Job(sidecar.events, stubborn=True), clock) as run:
        run.cancel()
        await asyncio.sleep(0.3)
        assert not run.done()
        clock.now += sidecar.grant
        await asyncio.wait((run,), timeout=20)
        assert run.cancelled()
        assert "still runs after its deadline" in errors(caplog)[0]


async def test_a_second_cancellation_does_not_leave_a_thread_behind(sidecar: FakeSidecar) -> None:
    job = Job(sidecar.events, stubborn=True)
    async with campaigning(sidecar, job, Clock()) as run:
        for _ in range(3):
            run.cancel()
            await asyncio.sleep(0.05)
        assert not run.done()
        job.release.set()
        await asyncio.wait((run,), timeout=20)
        assert sidecar.events == ["thread ends", "resign"]


async def test_the_result_and_the_error_of_a_job_propagate(sidecar: FakeSidecar) -> None:
    def fail(_: Term) -> None:
        raise LookupError("nothing there")

    async def work(term: Term) -> int:
        with pytest.raises(LookupError, match="nothing there"):
            await term.run_in_thread(fail)
        return await term.run_in_thread(lambda term: term.token * 2)

    await sidecar.elect(7)
    async with LeaseClient(sidecar.url) as client:
        assert await client.leadership(NAME).run(work) == 14


async def test_an_error_after_the_cancellation_propagates(sidecar: FakeSidecar) -> None:
    def job(term: Term) -> None:
        began.set()
        while term.remaining() and not release.wait(0.005):
            pass
        raise LookupError("on the way out")

    async def work(term: Term) -> None:
        await term.run_in_thread(job)

    began, release = threading.Event(), threading.Event()
    await sidecar.elect(7)
    async with LeaseClient(sidecar.url) as client:
        run = asyncio.create_task(client.leadership(NAME).run(work))
        await eventually(began.is_set)
        run.cancel()
        await asyncio.wait((run,), timeout=20)
        release.set()
        with pytest.raises(LookupError, match="on the way out"):
            await run


async def test_no_thread_starts_under_an_ended_term() -> None:
    ran: list[Term] = []
    term = Term("lease", 7, "task-a", lambda: 0.0)
    with pytest.raises(TermOver):
        await term.run_in_thread(ran.append)
    assert ran == []


async def test_a_job_that_raises_term_over_ends_the_work_with_it() -> None:
    def job(_: Term) -> None:
        raise TermOver("the term of another lease")

    with pytest.raises(TermOver, match="another lease"):
        await Term("lease", 7, "task-a", lambda: 1.0).run_in_thread(job)


async def test_a_cancelled_job_that_raises_a_group_of_term_over_is_cancelled() -> None:
    def job(term: Term) -> None:
        began.set()
        while term.remaining():
            time.sleep(0.005)
        raise ExceptionGroup("the job's tasks", [TermOver("one"), ExceptionGroup("inner", [TermOver("other")])])

    began = threading.Event()
    work = asyncio.create_task(Term("lease", 7, "task-a", lambda: 1.0).run_in_thread(job))
    await eventually(began.is_set)
    work.cancel()
    await asyncio.wait((work,))
    assert work.cancelled()


async def test_a_thread_that_the_work_left_running_is_reported_when_it_checks_its_term(
    sidecar: FakeSidecar, caplog: pytest.LogCaptureFixture
) -> None:
    def job(term: Term) -> None:
        began.set()
        release.wait(20)
        for _ in range(2):
            with suppress(TermOver):
                term.check()

    async def work(term: Term) -> None:
        await asyncio.to_thread(job, term)  # when the work is cancelled, nothing awaits the end of the thread

    began, release = threading.Event(), threading.Event()
    await sidecar.elect(7)
    async with LeaseClient(sidecar.url) as client:
        run = asyncio.create_task(client.leadership(NAME).run(work))
        await eventually(began.is_set)
        await sidecar.follow()
        await eventually(lambda: "resign" in sidecar.events)
        assert errors(caplog) == []
        release.set()
        await eventually(lambda: errors(caplog))
        run.cancel()
        await asyncio.wait((run,))
    [error] = errors(caplog)
    assert "a thread or task that the work started still runs" in error


async def test_work_that_blocks_the_event_loop_past_its_deadline_is_reported(
    sidecar: FakeSidecar, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()

    async def work(_: Term) -> None:
        clock.now += sidecar.grant  # the time for which the work blocks

    await sidecar.elect(7)
    async with LeaseClient(sidecar.url, clock=clock) as client:
        await client.leadership(NAME).run(work)
    assert "blocked the event loop" in errors(caplog)[0]


PROGRAM = """
import asyncio, os, signal, sys, time
from sidecar.client import LeaseClient

def stubborn(term):
    while True:
        os.write(1, b"works\\n")  # a buffered stream may be locked when the interpreter ends
        time.sleep(0.05)

async def main():
    async with LeaseClient(sys.argv[1]) as client:
        lead = client.leadership("background_services")
        run = asyncio.create_task(lead.run(lambda term: term.run_in_thread(stubborn)))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, run.cancel)
        await asyncio.wait((run,))
    print("leaves", flush=True)

asyncio.run(main())
"""


async def test_a_thread_that_never_returns_does_not_keep_the_process_alive(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """The process neither hangs at its end nor leaves the thread running."""
    sidecar = RealSidecar(tmp_path, redis_server, "task-a", GRANT_TTL="2")
    program = Process(tmp_path / "program.log", ["-c", PROGRAM, sidecar.url])
    with killed_at_exit(sidecar, program):
        sidecar.start()
        program.start()
        await eventually(lambda: "works" in program.output, within=60)
        assert (await get_json(f"{sidecar.url}/leader/background_services"))["is_leader"]
        assert await asyncio.to_thread(program.stop, signal.SIGTERM) == 0
        assert "still runs after its deadline" in program.output
        assert "leaves" in program.output
        assert "Traceback" not in program.output
