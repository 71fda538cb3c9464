"""The rules for work under a lease, with a sidecar that keeps the contract."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web

from sidecar.client import Leadership, LeaseClient, Term, TermOver
from tests.support.hostile_sidecar import NAME, Clock, FakeSidecar, Work, on_the_clock
from tests.support.waiting import eventually


@asynccontextmanager
async def running(sidecar: FakeSidecar, work: Work, **options: float) -> AsyncIterator[Leadership]:
    """A client whose `run(work)` is active until the end of the block."""
    async with LeaseClient(sidecar.url, **options) as client:  # type: ignore[arg-type] # floats only
        lead = client.leadership(NAME)
        run = asyncio.create_task(lead.run(work))
        try:
            yield lead
        finally:
            work.release.set()
            run.cancel()
            with suppress(asyncio.CancelledError):
                await run


async def test_work_runs_under_the_term_that_the_sidecar_grants(sidecar: FakeSidecar) -> None:
    work = Work(sidecar.events)
    async with running(sidecar, work) as lead:
        await eventually(lambda: lead.holder == "task-b")
        assert (lead.is_leader, lead.token, lead.remaining()) == (False, None, 0.0)
        assert (lead.state, lead.instance_id) == ("following", "task-a")
        assert work.terms == []
        await sidecar.elect(7)
        await eventually(lambda: work.running == 1)
        assert (lead.is_leader, lead.token, lead.holder, lead.state) == (True, 7, "task-a", "leading")
        assert 0 < lead.remaining() <= sidecar.grant
        (term,) = work.terms
        assert (term.name, term.token, term.holder) == (NAME, 7, "task-a")
        assert 0 < term.remaining() <= sidecar.grant
        term.check()
    assert sidecar.events == ["begin 7", "cancel 7", "end 7", "resign"]
    with pytest.raises(TermOver, match="term 7 of background_services"):
        term.check()
    assert (lead.is_leader, lead.token, lead.holder, lead.state, lead.instance_id) == (False, None, None, None, None)


async def test_the_result_of_the_work_is_returned_after_the_resign(sidecar: FakeSidecar) -> None:
    await sidecar.elect(1)

    async def work(term: Term) -> str:
        sidecar.events.append("end")
        return f"done under {term.token}"

    async with LeaseClient(sidecar.url) as client:
        assert await client.leadership(NAME).run(work) == "done under 1"
        assert sidecar.events == ["end", "resign"]
        assert not client.leadership(NAME).is_leader


async def test_an_error_of_the_work_propagates_after_the_resign(sidecar: FakeSidecar) -> None:
    await sidecar.elect(1)

    async def work(term: Term) -> None:
        raise LookupError("no such price")

    async with LeaseClient(sidecar.url) as client:
        with pytest.raises(LookupError, match="no such price"):
            await client.leadership(NAME).run(work)
    assert sidecar.events == ["resign"]


async def test_a_cancellation_inside_the_work_is_an_error_and_does_not_cancel_the_caller(sidecar: FakeSidecar) -> None:
    """If `run` raised this CancelledError, the task of the caller would end, although nobody cancelled it."""
    await sidecar.elect(1)

    async def work(term: Term) -> None:
        raise asyncio.CancelledError

    async with LeaseClient(sidecar.url) as client:
        with pytest.raises(RuntimeError, match=f"the work of {NAME} cancelled itself"):
            await client.leadership(NAME).run(work)
    assert sidecar.events == ["resign"]


async def test_a_cancellation_while_following_resigns_and_propagates(sidecar: FakeSidecar) -> None:
    async with LeaseClient(sidecar.url) as client:
        run = asyncio.create_task(client.leadership(NAME).run(Work([])))
        await eventually(lambda: len(sidecar.polls) >= 2)  # the second request is held
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    assert sidecar.events == ["resign"]


async def test_a_cancellation_propagates_even_if_the_work_swallows_it(sidecar: FakeSidecar) -> None:
    await sidecar.elect(1)
    begun = asyncio.Event()

    async def work(term: Term) -> str:
        begun.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "an unexpected result"

    async with LeaseClient(sidecar.url) as client:
        run = asyncio.create_task(client.leadership(NAME).run(work))
        await begun.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    assert sidecar.events == ["resign"]


async def test_work_that_has_swallowed_a_cancellation_is_cancelled_with_run(sidecar: FakeSidecar) -> None:
    """Such work looks cancelled. A task group that fails leaves its task in the same state on Python 3.11."""
    await sidecar.elect(1)
    goes_on = asyncio.Event()

    async def work(term: Term) -> None:
        if (this := asyncio.current_task()) is not None:
            this.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        goes_on.set()
        await asyncio.Event().wait()

    async with LeaseClient(sidecar.url) as client:
        run = asyncio.create_task(client.leadership(NAME).run(work))
        await goes_on.wait()
        run.cancel()
        done, _ = await asyncio.wait((run,), timeout=20)
        assert done, "the work still runs"
        assert run.cancelled()
    assert sidecar.events == ["resign"]


@pytest.mark.parametrize("run_first", [False, True], ids=["the work first", "run first"])
async def test_the_end_of_the_event_loop_awaits_the_work_before_the_resign(
    sidecar: FakeSidecar, run_first: bool
) -> None:
    """At its end `asyncio.run` cancels every task in any order, also the tasks that `run` has started."""
    await sidecar.elect(1)

    async def main() -> None:
        begun = asyncio.Event()

        async def work(term: Term) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.3)  # the length of the clean-up; the client must not resign during this time
                sidecar.events.append("end")

        async def campaign() -> None:
            async with LeaseClient(sidecar.url) as client:
                await client.leadership(NAME).run(work)

        campaigning = asyncio.create_task(campaign())
        await begun.wait()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in sorted(others, key=lambda each: each is campaigning, reverse=run_first):
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    await asyncio.to_thread(asyncio.run, main())
    assert sidecar.events == ["end", "resign"]


@pytest.mark.parametrize("by", ["cancellation", "term"])
async def test_an_error_while_the_work_unwinds_is_not_lost(sidecar: FakeSidecar, by: str) -> None:
    await sidecar.elect(1)
    begun = asyncio.Event()

    async def work(term: Term) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError("the file cannot be closed")

    async with LeaseClient(sidecar.url) as client:
        run = asyncio.create_task(client.leadership(NAME).run(work))
        await begun.wait()
        if by == "cancellation":
            run.cancel()
        else:
            await sidecar.follow()
        with pytest.raises(LookupError, match="closed"):
            await run
    assert sidecar.events == ["resign"]


async def test_work_is_awaited_to_its_end_before_the_resign_and_the_next_term(sidecar: FakeSidecar) -> None:
    sidecar.reelect = True
    work = Work(sidecar.events)
    work.release.clear()
    async with running(sidecar, work) as lead:
        await sidecar.elect(1)
        await eventually(lambda: work.running == 1)
        await sidecar.follow("DISABLED", "disabled")
        await eventually(lambda: "cancel 1" in sidecar.events)
        assert (lead.is_leader, lead.holder, lead.state) == (False, "DISABLED", "disabled")
        with pytest.raises(TermOver):
            work.terms[0].check()
        await sidecar.elect(2)
        polls = len(sidecar.polls)
        await asyncio.sleep(0.6)  # time in which neither a request nor a term may begin
        assert len(sidecar.polls) == polls
        assert sidecar.events == ["begin 1", "cancel 1"]
        work.release.set()
        await eventually(lambda: len(work.terms) == 2)
        assert sidecar.events == ["begin 1", "cancel 1", "end 1", "resign", "begin 2"]
        assert work.terms[1].remaining() > 0
        assert work.terms[0].remaining() == 0, "an ended term does not begin again"


@on_the_clock(bears=0.2)
async def test_no_request_is_sent_while_the_work_unwinds(sidecar: FakeSidecar) -> None:
    sidecar.grant = 0.4
    work = Work(sidecar.events)
    work.release.clear()
    async with LeaseClient(sidecar.url) as client:
        run = asyncio.create_task(client.leadership(NAME).run(work))
        await sidecar.elect(1)
        await eventually(lambda: work.running == 1)
        run.cancel()
        await eventually(lambda: "cancel 1" in sidecar.events)
        polls = len(sidecar.polls)
        await asyncio.sleep(0.6)  # longer than the grant; a request in this time would count as demand
        assert len(sidecar.polls) == polls
        work.release.set()
        with pytest.raises(asyncio.CancelledError):
            await run


async def test_work_that_returns_because_its_term_ended_has_no_result(sidecar: FakeSidecar) -> None:
    sidecar.reelect = True
    await sidecar.elect(1)
    terms: list[int] = []

    async def work(term: Term) -> str:
        terms.append(term.token)
        if term.token == 1:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        return f"done under {term.token}"

    async with LeaseClient(sidecar.url) as client:
        run = asyncio.create_task(client.leadership(NAME).run(work))
        await eventually(lambda: terms == [1])
        await sidecar.elect(4)  # the token changes without notice; the client then resigns from term 1
        assert await run == "done under 4"
    assert terms == [1, 4]


async def test_term_over_raised_by_the_work_ends_the_term_and_nothing_else(sidecar: FakeSidecar) -> None:
    sidecar.grant = 0.4
    sidecar.reelect = True
    await sidecar.elect(1)

    async def work(term: Term) -> str:
        if term.token == 1:
            time.sleep(0.5)  # noqa: ASYNC251 - work that blocks the loop past its deadline
            sidecar.grant = 10.0
            term.check()
        return f"done under {term.token}"

    async with LeaseClient(sidecar.url) as client:
        assert await client.leadership(NAME).run(work) == "done under 2"


async def _check_in_a_group(term: Term) -> None:
    async with asyncio.TaskGroup() as tasks:
        for _ in range(2):
            tasks.create_task(_check(term))


async def _check(term: Term) -> None:
    term.check()


async def test_term_over_in_nested_task_groups_ends_the_term_and_nothing_else(sidecar: FakeSidecar) -> None:
    clock = Clock()
    sidecar.reelect = True
    await sidecar.elect(1)

    async def work(term: Term) -> str:
        if term.token == 1:
            clock.now += sidecar.grant  # the process was frozen
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_check_in_a_group(term))
        return f"done under {term.token}"

    async with LeaseClient(sidecar.url, clock=clock) as client:
        assert await client.leadership(NAME).run(work) == "done under 2"


async def test_an_error_beside_term_over_in_a_task_group_ends_run_with_the_group(sidecar: FakeSidecar) -> None:
    clock = Clock()
    sidecar.reelect = True
    await sidecar.elect(1)

    async def fail() -> None:
        raise LookupError("nothing there")

    async def work(term: Term) -> None:
        if term.token == 2:
            return
        clock.now += sidecar.grant
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_check(term))
            tasks.create_task(fail())

    async with LeaseClient(sidecar.url, clock=clock) as client:
        with pytest.raises(ExceptionGroup) as raised:
            await client.leadership(NAME).run(work)
    assert {type(error) for error in raised.value.exceptions} == {TermOver, LookupError}


async def test_term_over_of_another_lease_is_an_ordinary_error(sidecar: FakeSidecar) -> None:
    await sidecar.elect(1)

    async def work(term: Term) -> None:
        raise TermOver("the term of another lease is over")

    async with LeaseClient(sidecar.url) as client:
        with pytest.raises(TermOver, match="another"):
            await client.leadership(NAME).run(work)


@pytest.mark.parametrize("change", ["token", "instance_id"])
async def test_another_token_or_instance_is_another_term(sidecar: FakeSidecar, change: str) -> None:
    await sidecar.elect(1)
    work = Work(sidecar.events)
    async with running(sidecar, work):
        await eventually(lambda: work.running == 1)
        if change == "instance_id":
            sidecar.instance_id = "task-c"
        sidecar.reelect = True
        await sidecar.elect(1 if change == "instance_id" else 2)
        await eventually(lambda: len(work.terms) == 2)
        assert sidecar.events[:4] == ["begin 1", "cancel 1", "end 1", "resign"]
        assert work.terms[1].holder == sidecar.instance_id


@on_the_clock(bears=1.5)
async def test_a_grant_is_extended_in_time_with_few_requests(sidecar: FakeSidecar) -> None:
    sidecar.grant = 4.0
    work = Work(sidecar.events)
    async with running(sidecar, work, stop_before=0.1) as lead:
        await sidecar.elect(1)
        await eventually(lambda: work.running == 1)
        polls, began = len(sidecar.polls), time.monotonic()
        lowest = sidecar.grant
        while time.monotonic() < began + 1.5 * sidecar.grant:
            lowest = min(lowest, lead.remaining())
            await asyncio.sleep(0.01)
        assert lowest > 0.1, "the work would have been stopped"
        assert sidecar.events == ["begin 1"]
        assert len(sidecar.polls) - polls <= 1.5 * 6


@on_the_clock(bears=0.5)
async def test_work_ends_before_the_deadline_when_the_sidecar_is_frozen(
    sidecar: FakeSidecar, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sidecar.grant = 6.0
    work = Work(sidecar.events)
    async with running(sidecar, work, stop_before=3.0) as lead:
        await sidecar.elect(1)
        await eventually(lambda: work.running == 1)
        asked, frozen_at = len(sidecar.polls), time.monotonic()
        sidecar.misbehave = sidecar.silence
        await eventually(lambda: bool(work.left))
        assert 0 < work.left[0] < 3.0
        assert time.monotonic() < frozen_at + sidecar.grant, "the work ends at the deadline of an earlier grant"
        assert len(sidecar.polls) >= asked + 2, "a fresh request is tried before the deadline"
        await eventually(lambda: "resign" in sidecar.events)
        await eventually(lambda: lead.holder is None)
        assert not lead.is_leader
    events = events_in(caplog)
    assert [event for event in events if event != "sidecar_unknown"] == ["work_began", "grant_over", "work_ended"]


def events_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [event for record in caplog.records if (event := getattr(record, "event", None))]


@on_the_clock(bears=0.5)
async def test_the_end_of_a_grant_is_not_reported_as_a_missing_answer(
    sidecar: FakeSidecar, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis does not answer: the sidecar answers each request 0.05 s late, and never extends the grant."""
    caplog.set_level(logging.INFO)
    sidecar.grant = 2.0
    work = Work(sidecar.events)
    async with running(sidecar, work):
        await sidecar.elect(1)
        await eventually(lambda: work.running == 1)
        until = time.monotonic() + sidecar.grant

        async def same_end(request: web.Request) -> web.StreamResponse:
            left = max(until - time.monotonic(), 0.001)
            await asyncio.sleep(float(request.query.get("wait", "0")) + 0.05)
            return web.json_response(sidecar.answer(**({} if sidecar.token is None else {"expires_in": left})))

        sidecar.misbehave = same_end
        await eventually(lambda: "work_ended" in events_in(caplog))
        asked = len(sidecar.polls)
        await eventually(lambda: len(sidecar.polls) > asked + 1)
    assert events_in(caplog) == ["work_began", "grant_over", "work_ended"]


@on_the_clock(bears=0.2)
async def test_a_silent_sidecar_is_reported_after_the_end_of_a_short_grant(
    sidecar: FakeSidecar, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sidecar.grant = 0.6
    work = Work(sidecar.events)
    async with running(sidecar, work):
        await sidecar.elect(1)
        await eventually(lambda: work.running == 1)
        sidecar.misbehave = sidecar.silence
        await eventually(lambda: "sidecar_unknown" in events_in(caplog))
        sidecar.misbehave = None
        await eventually(lambda: "sidecar_recovered" in events_in(caplog))
    reported = ["sidecar_unknown", "sidecar_recovered"]
    assert events_in(caplog) == ["work_began", "grant_over", "work_ended", *reported]


@on_the_clock(bears=0.5)
async def test_a_lost_request_does_not_end_a_grant(sidecar: FakeSidecar) -> None:
    sidecar.grant = 3.0
    work = Work(sidecar.events)
    async with running(sidecar, work) as lead:
        await sidecar.elect(1)
        await eventually(lambda: work.running == 1)
        asked = len(sidecar.polls)

        async def once(request: web.Request) -> web.StreamResponse:
            sidecar.misbehave = None
            raise web.HTTPInternalServerError

        sidecar.misbehave = once
        await eventually(lambda: len(sidecar.polls) >= asked + 4)
        assert lead.is_leader
        assert sidecar.events == ["begin 1"]
        assert "wait" in sidecar.polls[asked][1]
        assert sidecar.polls[asked + 1][1] == {"token": "1"}, "the request does not wait"


async def test_work_may_run_for_three_quarters_of_a_short_grant(sidecar: FakeSidecar) -> None:
    sidecar.grant = 3.0
    work = Work(sidecar.events)
    async with running(sidecar, work, stop_before=5.0):
        await sidecar.elect(1)
        await eventually(lambda: work.running == 1)
        sidecar.misbehave = sidecar.silence
        await eventually(lambda: bool(work.left))
        assert work.left[0] <= sidecar.grant / 4


@on_the_clock(bears=0.2)
async def test_work_that_ignores_its_cancellation_is_logged_once_and_awaited(
    sidecar: FakeSidecar, caplog: pytest.LogCaptureFixture
) -> None:
    sidecar.grant = 0.3
    work = Work(sidecar.events)
    work.release.clear()
    async with running(sidecar, work) as lead:
        await sidecar.elect(1)
        await eventually(lambda: work.running == 1)
        sidecar.misbehave = sidecar.silence
        await eventually(lambda: any(record.levelno == logging.ERROR for record in caplog.records))
        assert not lead.is_leader
        await asyncio.sleep(0.6)
        complaints = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert len(complaints) == 1
        assert complaints[0].name == "sidecar.client"
        assert "still runs after its deadline" in complaints[0].getMessage()
        assert sidecar.events == ["begin 1", "cancel 1"], "no resign while the work runs"


# Rules about time, with a clock that the test moves.


async def test_the_deadline_counts_from_the_time_before_the_request_was_sent(sidecar: FakeSidecar) -> None:
    clock = Clock()
    await sidecar.elect(1)
    remaining: list[float] = []

    async def slow(request: web.Request) -> web.StreamResponse:
        clock.now += 3.0  # the client cannot know whether the request or the answer was delayed
        return web.json_response(sidecar.answer(expires_in=5.0))

    async def work(term: Term) -> None:
        remaining.append(term.remaining())

    sidecar.misbehave = slow
    async with LeaseClient(sidecar.url, clock=clock) as client:
        await client.leadership(NAME).run(work)
    assert remaining == [2.0]


async def test_answers_with_the_same_deadline_do_not_shorten_the_time_in_which_the_work_ends(
    sidecar: FakeSidecar,
) -> None:
    """While Redis is unreachable, the sidecar answers, but all its grants end at the same time."""
    clock = Clock()
    deadline = clock.now + 8.0
    left: list[float] = []

    async def fixed(request: web.Request) -> web.StreamResponse:
        answer = sidecar.answer(expires_in=deadline - clock.now)
        clock.now += 0.25
        return web.json_response(answer)

    async def work(term: Term) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.append(term.grant_left())

    await sidecar.elect(1)
    sidecar.misbehave = fixed
    async with LeaseClient(sidecar.url, clock=clock, stop_before=1.0) as client:
        run = asyncio.create_task(client.leadership(NAME).run(work))
        await eventually(lambda: left)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    assert 0.5 <= left[0] <= 1.0


async def test_an_answer_that_arrives_after_its_grant_ended_grants_nothing(sidecar: FakeSidecar) -> None:
    clock = Clock()
    await sidecar.elect(1)

    async def late(request: web.Request) -> web.StreamResponse:
        clock.now += 5.0
        return web.json_response(sidecar.answer(expires_in=5.0))

    sidecar.misbehave = late
    async with LeaseClient(sidecar.url, clock=clock) as client:
        work = Work([])
        run = asyncio.create_task(client.leadership(NAME).run(work))
        await eventually(lambda: len(sidecar.polls) > 2)
        assert not client.leadership(NAME).is_leader
        assert client.leadership(NAME).state is None
        assert sidecar.events == [], "there was no term to resign from"
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert work.terms == []


async def test_leadership_ends_by_the_clock_exactly_at_the_deadline(sidecar: FakeSidecar) -> None:
    clock = Clock()
    await sidecar.elect(1)
    sidecar.misbehave = sidecar.says(expires_in=5.0)
    async with LeaseClient(sidecar.url, clock=clock) as client:
        lead = client.leadership(NAME)

        seen: list[tuple[bool, int | None, float]] = []

        async def work(term: Term) -> None:
            for step in (0.0, 4.75, 0.25, 1.0):
                clock.now += step
                seen.append((lead.is_leader, lead.token, lead.remaining()))
                if lead.remaining() > 0:
                    term.check()
            with pytest.raises(TermOver):
                term.check()

        await lead.run(work)
        assert seen == [(True, 1, 5.0), (True, 1, 0.25), (False, None, 0.0), (False, None, 0.0)]


@pytest.mark.parametrize("name", ["token", "holder", "state", "instance_id"])
async def test_a_thread_may_read_a_property_while_the_term_ends(sidecar: FakeSidecar, name: str) -> None:
    """The thread reads the clock during the access, and waits there until the term has ended."""
    at_the_clock, over = threading.Event(), threading.Event()

    def clock() -> float:
        if threading.current_thread() is not threading.main_thread():
            at_the_clock.set()
            assert over.wait(20)
        return 1000.0

    def read() -> object:
        return getattr(lead, name)

    work = Work([])
    await sidecar.elect(7)
    async with LeaseClient(sidecar.url, clock=clock) as client:
        lead = client.leadership(NAME)
        run = asyncio.create_task(lead.run(work))
        await eventually(lambda: work.running == 1)
        before = read()
        reading = asyncio.create_task(asyncio.to_thread(read))
        await eventually(at_the_clock.is_set)
        run.cancel()
        with suppress(asyncio.CancelledError):
            await run
        over.set()
        assert await reading == before


async def test_a_late_answer_does_not_revive_a_term(sidecar: FakeSidecar) -> None:
    clock = Clock()
    await sidecar.elect(1)
    thawed = False

    async def thaw(request: web.Request) -> web.StreamResponse:
        nonlocal thawed
        if (
            work.terms and not thawed
        ):  # the machine was paused: the old grant has ended, and this answer would extend it
            thawed = True
            clock.now += 5.0
            return web.json_response(sidecar.answer(expires_in=10.0))
        return web.json_response(sidecar.answer(expires_in=5.0))

    sidecar.misbehave = thaw
    work = Work(sidecar.events)
    async with LeaseClient(sidecar.url, clock=clock) as client:
        run = asyncio.create_task(client.leadership(NAME).run(work))
        await eventually(lambda: len(work.terms) == 1)
        await eventually(lambda: "resign" in sidecar.events)
        assert sidecar.events[:4] == ["begin 1", "cancel 1", "end 1", "resign"]
        assert work.terms[0].remaining() == 0.0
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run


@on_the_clock(bears=2.0)
async def test_work_stops_at_its_deadline_even_if_the_loop_slept(sidecar: FakeSidecar) -> None:
    clock = Clock()
    sidecar.grant = 50.0  # the next answer arrives much later
    await sidecar.elect(1)
    work = Work(sidecar.events)
    async with LeaseClient(sidecar.url, clock=clock) as client:
        run = asyncio.create_task(client.leadership(NAME).run(work))
        await eventually(lambda: work.running == 1)
        clock.now += 49.6  # after a suspension of the machine, the loop's timers have not moved
        await eventually(lambda: "cancel 1" in sidecar.events, within=8)  # the answer to the held request takes 10 s
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run


# Rules about demand, connections and invalid use of the client.


async def test_no_request_is_sent_unless_run_is_active(sidecar: FakeSidecar) -> None:
    async with LeaseClient(sidecar.url) as client:
        lead = client.leadership(NAME)
        assert (lead.is_leader, lead.holder, lead.state, lead.instance_id) == (False, None, None, None)
        assert sidecar.polls == []
        run = asyncio.create_task(lead.run(Work([])))
        await eventually(lambda: len(sidecar.polls) >= 2)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        asked = len(sidecar.polls)
        await asyncio.sleep(0.1)
        assert len(sidecar.polls) == asked


@on_the_clock(bears=0.5)
async def test_a_follower_keeps_one_request_open_and_sends_no_other(sidecar: FakeSidecar) -> None:
    work = Work(sidecar.events)
    async with running(sidecar, work):
        await eventually(lambda: len(sidecar.polls) == 2)
        await asyncio.sleep(0.5)
        assert len(sidecar.polls) == 2
        assert sidecar.polls[0][1] == {}
        assert sidecar.polls[1][1] == {"wait": "10.000", "version": "boot/0"}
        assert len({peer for _, peer in sidecar.peers}) == 1, "one connection, kept open"


@on_the_clock(bears=0.2)
async def test_the_resign_of_a_leader_uses_an_open_connection(sidecar: FakeSidecar) -> None:
    sidecar.grant = 1.0
    await sidecar.elect(1)
    work = Work(sidecar.events)
    async with running(sidecar, work):
        await eventually(lambda: work.running == 1)
        await eventually(lambda: any(kind == "knock" for kind, _ in sidecar.peers))
        await eventually(lambda: len(sidecar.polls) >= 5)
    kind, peer = sidecar.peers[-1]
    assert kind == "resign"
    assert peer in {other for _, other in sidecar.peers[:-1]}


async def test_proxies_of_the_environment_are_not_used(sidecar: FakeSidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    work = Work(sidecar.events)
    async with running(sidecar, work) as lead:
        await eventually(lambda: lead.holder == "task-b")


async def test_a_lease_has_one_leadership_which_runs_once_at_a_time(sidecar: FakeSidecar) -> None:
    work = Work(sidecar.events)
    async with LeaseClient(sidecar.url) as client:
        lead = client.leadership(NAME)
        assert client.leadership(NAME) is lead
        assert client.leadership("daily_scheduler") is not lead
        run = asyncio.create_task(lead.run(work))
        await eventually(lambda: lead.holder == "task-b")
        with pytest.raises(RuntimeError, match="already"):
            await lead.run(work)
        await sidecar.elect(1)
        await eventually(lambda: work.running == 1)
        with pytest.raises(RuntimeError, match=r"cancel run\(\)"):
            await lead.resign()
        assert "resign" not in sidecar.events
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        await lead.resign()
        assert sidecar.events[-2:] == ["resign", "resign"]


async def test_resign_is_refused_while_run_is_active_even_between_two_terms(sidecar: FakeSidecar) -> None:
    """Otherwise the resign could release a term whose grant has arrived but has not been read."""
    async with LeaseClient(sidecar.url) as client:
        lead = client.leadership(NAME)
        run = asyncio.create_task(lead.run(Work(sidecar.events)))
        await eventually(lambda: len(sidecar.polls) >= 2)  # the second request is held
        with pytest.raises(RuntimeError, match=r"cancel run\(\)"):
            await lead.resign()
        assert sidecar.events == []
        run.cancel()
        await asyncio.wait((run,))
        await lead.resign()
        assert sidecar.events == ["resign", "resign"]


async def test_work_on_a_client_that_is_not_open_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="async with LeaseClient"):
        await LeaseClient().leadership(NAME).run(Work([]))


async def test_a_client_that_is_entered_twice_is_an_error_and_stays_open(sidecar: FakeSidecar) -> None:
    async with LeaseClient(sidecar.url) as client:
        with pytest.raises(RuntimeError, match="open already"):
            async with client:
                pass
        await client.leadership(NAME).resign()
        assert sidecar.events == ["resign"]


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:4040", "ftp://127.0.0.1", "http://", "http://h/?x=1", "http://a..b", "http://a b", "http://h:x",
     "http://h/a b", "http://h/a\tb", "http://h:0", "http://[::1", "http://" + "x" * 64],
)  # fmt: skip
def test_an_invalid_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="http://HOST:PORT"):
        LeaseClient(url)


@pytest.mark.parametrize(
    "url", ["http://user:secret@h:4040", "http://user:sec@ret@h", "user:secret@h", "http://secret@h"]
)
def test_the_error_for_an_address_with_a_login_does_not_show_the_password(url: str) -> None:
    with pytest.raises(ValueError, match="http://HOST:PORT") as caught:
        LeaseClient(url)
    assert "sec" not in str(caught.value)


@pytest.mark.parametrize("stop_before", [-0.1, float("nan"), float("inf")])
def test_an_invalid_stop_before_is_refused(stop_before: float) -> None:
    with pytest.raises(ValueError, match="stop_before"):
        LeaseClient(stop_before=stop_before)
