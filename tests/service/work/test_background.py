"""With real sidecars: failed work frees its lease and is restarted, and the other work continues."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from service.database.connection import StaleTerm, StoreError
from service.work import background as background_work
from service.work.background import SCHEDULER_LEASE, TRACKER_LEASE, Background, Work
from sidecar.client import LeaseClient, Term
from tests.support.processes import Sidecar

FOREVER = 1000.0


@asynccontextmanager
async def working(url: str, works: Mapping[str, Work], *, pause: float) -> AsyncIterator[Background]:
    async with LeaseClient(url) as client:
        background = Background(client, pause=(pause, pause), uniform=lambda _, most: most)
        task = asyncio.create_task(background.run(works))
        try:
            yield background
        finally:
            task.cancel()
            await asyncio.wait((task,))


def until(event: asyncio.Event) -> Awaitable[object]:
    return asyncio.wait_for(event.wait(), 20)


@pytest.mark.parametrize("error", [ZeroDivisionError("bug"), StaleTerm("a newer term has the fence"), None])
async def test_failed_work_frees_its_lease_for_another_task_and_the_other_work_continues(
    error: Exception | None, new_sidecar: Callable[..., Sidecar], stack: AsyncExitStack
) -> None:
    failed, taken, going_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def fail(term: Term) -> None:
        failed.set()
        if error is not None:
            raise error

    async def go_on(term: Term) -> None:
        await failed.wait()
        while not taken.is_set():
            term.check()
            await asyncio.sleep(0.01)
        going_on.set()
        await asyncio.sleep(FOREVER)

    async def take(term: Term) -> None:
        taken.set()
        await asyncio.sleep(FOREVER)

    one, other = [await stack.enter_async_context(new_sidecar(name)) for name in ("one", "other")]
    works = {TRACKER_LEASE: fail, SCHEDULER_LEASE: go_on}
    async with working(one.url, works, pause=FOREVER) as failing:
        await until(failed)
        async with working(other.url, {TRACKER_LEASE: take}, pause=FOREVER) as background:
            await until(taken)
            assert failing.leaderships[TRACKER_LEASE].state is None  # the failed task sends no request
            assert background.leaderships[TRACKER_LEASE].is_leader
            await until(going_on)


async def test_work_that_failed_is_started_again_under_a_later_term(
    new_sidecar: Callable[..., Sidecar], stack: AsyncExitStack
) -> None:
    tokens: list[int] = []
    third = asyncio.Event()

    async def fail_twice(term: Term) -> None:
        tokens.append(term.token)
        if len(tokens) < 3:
            raise StoreError("away")
        third.set()
        await asyncio.sleep(FOREVER)

    sidecar = await stack.enter_async_context(new_sidecar("one"))
    async with working(sidecar.url, {TRACKER_LEASE: fail_twice}, pause=0.01):
        await until(third)
    assert tokens == sorted(set(tokens))


@pytest.mark.parametrize("waits", [False, True])
async def test_the_work_of_each_lease_ends_in_turn_but_slow_work_does_not_delay_the_next(
    waits: bool, new_sidecar: Callable[..., Sidecar], stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not waits:
        monkeypatch.setattr(background_work, "STOP_STAGGER", 20.0)  # longer than the work, even on a slow event loop
    began = {lease: asyncio.Event() for lease in (TRACKER_LEASE, SCHEDULER_LEASE)}
    scheduler_ended = asyncio.Event()
    ends: list[str] = []

    async def work(term: Term) -> None:
        began[term.name].set()
        try:
            await asyncio.sleep(FOREVER)
        finally:
            if term.name == SCHEDULER_LEASE:
                scheduler_ended.set()
            elif waits:
                await until(scheduler_ended)
            else:
                for _ in range(50):
                    await asyncio.sleep(0)
            ends.append(term.name)

    sidecar = await stack.enter_async_context(new_sidecar("one"))
    async with working(sidecar.url, {TRACKER_LEASE: work, SCHEDULER_LEASE: work}, pause=FOREVER):
        for each in began.values():
            await until(each)
    assert ends == ([SCHEDULER_LEASE, TRACKER_LEASE] if waits else [TRACKER_LEASE, SCHEDULER_LEASE])
