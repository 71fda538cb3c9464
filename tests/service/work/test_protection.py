"""Task protection with an agent on loopback that answers like ECS."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from service.database.store import Store
from service.market.calendar import NyseCalendar
from service.work.metrics import WorkMetrics
from service.work.protection import ANSWER_LIMIT, NoProtection, TaskProtection, protection_by
from service.work.scheduler import Scheduler
from tests.support.positions import entry
from tests.support.waiting import eventually
from tests.support.work_fakes import Clock, FakeTerm, FakeTermOver, ScriptedPrices

ARN = "arn:aws:ecs:us-west-1:000000000000:task/cluster/0123456789abcdef"
ON = {"ProtectionEnabled": True, "ExpiresInMinutes": 10}
OFF = {"ProtectionEnabled": False}

NO_SERVICE = (
    200,
    {"failure": {"Arn": ARN, "Detail": None, "Reason": "TASK_NOT_VALID", "Extra": {"added": "later"}}},
)
NO_ROLE = (403, {"requestID": "r", "error": {"Arn": ARN, "Code": "AccessDeniedException", "Message": "no\nrole"}})
LATE = (504, {"requestID": "r", "error": {"Arn": ARN, "Code": "RequestCanceled", "Message": "Timed out"}})
NONSENSE = (200, {"protection": {"ProtectionEnabled": "maybe"}})


class Agent:
    """The agent's `/task-protection/v1/state`. It stores the state, or returns the answer that the test sets."""

    def __init__(self) -> None:
        self.put: list[dict[str, Any]] = []
        self.protected = False
        self.expires = datetime(2026, 3, 2, 21, 0, 0, 837_000, tzinfo=UTC)
        """Expiry of the last protection. Each accepted request moves it 10 s later, as if 10 s had passed."""
        self.answer: tuple[int, dict[str, Any]] | None = None
        self.hangs = False
        self.loses_answers = False
        """Whether requests are accepted, but answered with an error."""
        self.uri = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Agent"]:
        app = web.Application()
        app.router.add_put("/api/some-task/task-protection/v1/state", self._handle)
        app.router.add_get("/api/some-task/task-protection/v1/state", self._state)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.uri = f"http://127.0.0.1:{runner.addresses[0][1]}/api/some-task"
            yield self
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.put.append(body)
        if self.hangs:
            await asyncio.Event().wait()
        if not body.keys() <= {"ProtectionEnabled", "ExpiresInMinutes"}:
            return web.json_response({"error": {"Code": "BadRequest", "Message": "unknown field"}}, status=400)
        if self.answer is not None:
            status, text = self.answer
            return web.json_response(text, status=status)
        self.protected = body["ProtectionEnabled"]
        self.expires += timedelta(seconds=10)
        if self.loses_answers:
            return web.json_response(LATE[1], status=LATE[0])
        return self._answer("milliseconds")

    async def _state(self, _: web.Request) -> web.Response:
        if self.answer is not None:
            status, text = self.answer
            return web.json_response(text, status=status)
        return self._answer("seconds")

    def _answer(self, precision: str) -> web.Response:
        state = {"ProtectionEnabled": self.protected, "TaskArn": ARN}
        if self.protected:
            state["ExpirationDate"] = self.expires.isoformat(timespec=precision).replace("+00:00", "Z")
        return web.json_response({"protection": state})


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    async with Agent().serving() as agent:
        yield agent


@asynccontextmanager
async def running(protection: TaskProtection) -> AsyncIterator[TaskProtection]:
    async with asyncio.TaskGroup() as tasks:
        run = tasks.create_task(protection.run())
        yield protection
        run.cancel()


def free(metrics: WorkMetrics) -> Callable[[], bool]:
    """A function that returns true while the metric shows that the task is not protected."""
    return lambda: [s.value for metric in metrics.protected.collect() for s in metric.samples] == [0]


def refusals(metrics: WorkMetrics) -> float:
    (found,) = [s.value for m in metrics.protection_refused.collect() for s in m.samples if s.name.endswith("_total")]
    return found


async def test_protection_is_set_for_the_length_of_the_job_and_removed(agent: Agent, metrics: WorkMetrics) -> None:
    async with running(TaskProtection(agent.uri, metrics)) as protection:
        with protection.held():
            await eventually(lambda: agent.protected)
        await eventually(free(metrics))
        assert agent.put == [ON, OFF]
        with protection.held():
            await eventually(lambda: agent.protected)
        await eventually(free(metrics))
    assert agent.put == [ON, OFF] * 2


async def test_protection_is_removed_when_the_job_fails_or_is_cancelled(agent: Agent, metrics: WorkMetrics) -> None:
    async with running(TaskProtection(agent.uri, metrics)) as protection:
        with pytest.raises(ZeroDivisionError), protection.held():
            await eventually(lambda: agent.protected)
            raise ZeroDivisionError
        await eventually(free(metrics))

        async def job() -> None:
            with protection.held():
                await asyncio.Event().wait()

        task = asyncio.create_task(job())
        await eventually(lambda: agent.protected)
        task.cancel()
        await asyncio.wait((task,))
        await eventually(free(metrics))


async def test_protection_is_removed_at_the_end_of_the_process(agent: Agent, metrics: WorkMetrics) -> None:
    protection = TaskProtection(agent.uri, metrics)
    with protection.held():
        async with running(protection):
            await eventually(lambda: agent.protected)
    assert agent.put == [ON, OFF]


async def test_protection_is_renewed_while_jobs_run_even_if_they_overlap(agent: Agent, metrics: WorkMetrics) -> None:
    async with running(TaskProtection(agent.uri, metrics, refresh=0.02)) as protection:
        with protection.held():
            with protection.held():
                await eventually(lambda: len(agent.put) > 2)
            await eventually(lambda: len(agent.put) > 5)
        await eventually(free(metrics))
    assert agent.put[:-1] == [ON] * (len(agent.put) - 1)


async def test_without_a_lasting_job_no_protection_is_requested(agent: Agent, metrics: WorkMetrics) -> None:
    async with running(TaskProtection(agent.uri, metrics, refresh=0.001)) as protection:
        for _ in range(10):
            with protection.held():
                pass  # over before a request could be sent
            await asyncio.sleep(0)
    assert agent.put == []


@pytest.mark.parametrize(
    ("answer", "words", "taken_back"),
    [
        (NO_SERVICE, "ECS refuses: TASK_NOT_VALID", False),
        (NO_ROLE, "the ECS agent answers 403 AccessDeniedException: no role", False),
        ((404, {}), "the ECS agent answers 404", False),
        (LATE, "the ECS agent answers 504 RequestCanceled: Timed out", True),
        (NONSENSE, "the ECS agent's answer is invalid", True),
    ],
    ids=["failure", "no role", "no such path", "late", "nonsense"],
)
async def test_a_refused_protection_is_logged_once_and_retried_and_never_fatal(
    answer: tuple[int, dict[str, Any]],
    words: str,
    taken_back: bool,
    agent: Agent,
    metrics: WorkMetrics,
    caplog: pytest.LogCaptureFixture,
) -> None:
    agent.answer = answer
    async with running(TaskProtection(agent.uri, metrics, retry=0.01)) as protection:
        with protection.held():
            await eventually(lambda: len(agent.put) >= 4)
            assert [record.getMessage() for record in caplog.records] == [
                f"this task is not protected from a scale-in: {words}"
            ]
            assert refusals(metrics) >= 3
        if not taken_back:
            await eventually(free(metrics))
    if taken_back:
        assert agent.put[-1] == OFF, "the task may still be protected"
    else:
        assert agent.put == [ON] * len(agent.put), "there is no protection to remove"


async def test_after_a_refusal_the_task_is_protected_once_the_agent_accepts(
    agent: Agent, metrics: WorkMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    agent.answer = NO_ROLE
    async with running(TaskProtection(agent.uri, metrics, retry=0.01)) as protection:
        with protection.held():
            await eventually(lambda: len(agent.put) >= 2)
            agent.answer = None
            await eventually(lambda: agent.protected)
        await eventually(free(metrics))
    assert [record.getMessage().partition(" until")[0] for record in caplog.records] == [
        "this task is not protected from a scale-in: the ECS agent answers 403 AccessDeniedException: no role",
        "this task is protected from a scale-in",
        "this task is no longer protected",
    ]


async def test_a_failed_removal_of_protection_is_retried(agent: Agent, metrics: WorkMetrics) -> None:
    async with running(TaskProtection(agent.uri, metrics, retry=0.01)) as protection:
        with protection.held():
            await eventually(lambda: agent.protected)
            agent.answer = LATE
        await eventually(lambda: agent.put.count(OFF) >= 3)
        assert agent.protected
        agent.answer = None
        await eventually(free(metrics))


async def test_a_process_does_not_end_the_later_protection_of_another_process(
    agent: Agent, metrics: WorkMetrics
) -> None:
    """For example, the API's job ends because a run by hand in the API's container has claimed the fence."""
    by_hand_metrics = WorkMetrics(CollectorRegistry())
    async with (
        running(TaskProtection(agent.uri, metrics)) as api,
        running(TaskProtection(agent.uri, by_hand_metrics)) as by_hand,
    ):
        with api.held():
            await eventually(lambda: agent.put == [ON])
            run = ExitStack()
            run.enter_context(by_hand.held())
            await eventually(lambda: agent.put == [ON, ON])
        await eventually(free(metrics))
        assert agent.protected
        run.close()
        await eventually(free(by_hand_metrics))
    assert agent.put == [ON, ON, OFF]


async def test_a_process_ends_its_own_protection_even_if_the_answer_to_a_renewal_was_lost(
    agent: Agent, metrics: WorkMetrics
) -> None:
    async with running(TaskProtection(agent.uri, metrics, refresh=0.01, retry=0.01)) as protection:
        with protection.held():
            await eventually(lambda: agent.protected)
            agent.loses_answers = True
            renewals = len(agent.put)
            await eventually(lambda: len(agent.put) > renewals + 2)
        await eventually(lambda: not agent.protected)
        agent.loses_answers = False


async def test_a_process_that_ends_does_not_end_the_later_protection_of_another_process(
    agent: Agent, metrics: WorkMetrics
) -> None:
    async with running(TaskProtection(agent.uri, WorkMetrics(CollectorRegistry()))) as api:
        async with running(TaskProtection(agent.uri, metrics)) as by_hand:
            with by_hand.held():
                await eventually(lambda: agent.put == [ON])
                job = ExitStack()
                job.enter_context(api.held())
                await eventually(lambda: agent.put == [ON, ON])
        assert agent.put == [ON, ON]
        assert agent.protected
        job.close()
    assert agent.put == [ON, ON, OFF]


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1/api/x", "nonsense", "http://[", ""])
async def test_an_unreachable_agent_is_never_fatal(
    uri: str, metrics: WorkMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(TaskProtection(uri, metrics, retry=0.01)) as protection:
        with protection.held():
            await eventually(lambda: refusals(metrics) >= 3)
    assert caplog.messages[0].startswith("this task is not protected from a scale-in: the ECS agent cannot be reached")


async def test_a_hanging_agent_delays_neither_the_start_nor_the_end_of_a_job(
    agent: Agent, metrics: WorkMetrics
) -> None:
    agent.hangs = True
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        protection = TaskProtection(agent.uri, metrics)
        run = tasks.create_task(protection.run())
        began = loop.time()
        with protection.held():
            held_after = loop.time() - began
            await eventually(lambda: agent.put)
            began = loop.time()
        assert held_after + loop.time() - began < ANSWER_LIMIT / 2
        agent.hangs = False
        run.cancel()
    assert agent.put == [ON, OFF], "the agent never answered, but may have received the request"


async def test_without_an_agent_there_is_no_protection(metrics: WorkMetrics) -> None:
    protection = protection_by(None, metrics)
    assert isinstance(protection, NoProtection)
    with protection.held():
        await protection.run()
    assert isinstance(protection_by("http://169.254.170.2/api/x", metrics), TaskProtection)


async def test_the_scheduler_protects_its_task_only_while_it_runs_jobs(
    agent: Agent, store: Store, metrics: WorkMetrics
) -> None:
    await store.put_positions([entry(1, "A", "2")])
    seen: list[bool] = []

    async def closes(day: date) -> Mapping[str, str]:
        await eventually(lambda: agent.protected)
        seen.append(agent.protected)
        return {"A": "10"}

    clock = Clock(datetime(2026, 3, 2, 21, 0, tzinfo=UTC))

    async def sleep(seconds: float) -> None:
        await eventually(free(metrics))
        await clock.sleep(seconds)

    async with running(TaskProtection(agent.uri, metrics)) as protection:
        scheduler = Scheduler(
            store,
            ScriptedPrices(closes=closes),
            NyseCalendar(),
            metrics,
            look_back=1,
            protection=protection,
            now=clock.now,
            sleep=sleep,
        )
        with pytest.raises(FakeTermOver):
            await scheduler.run(FakeTerm(clock=clock, until=clock.time + timedelta(minutes=5)))
    assert seen == [True]
    assert [json.dumps(put) for put in agent.put] == [json.dumps(ON), json.dumps(OFF)]
