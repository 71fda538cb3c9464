"""The sidecar and an older in-process candidate (docs/deployment-guide.md): both campaign during a migration."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from redis import Redis

from ops.local.servers import RedisServer
from runtime.clock import elapsed
from tests.sidecar.conftest import client_of
from tests.sidecar.test_process import SMALL, Asker, key
from tests.support.processes import RealSidecar, killed_at_exit
from tests.support.waiting import ROUNDS, eventually

TTL, HEARTBEAT = 3, 1.0


class GuideCandidate:
    """A candidate that does exactly what the guide says: SET NX EX, then GET and EXPIRE while it leads, then DEL."""

    def __init__(self, redis: Redis, key: str) -> None:
        self.believes: list[tuple[float, float]] = []
        """Begin and end of each term. Each renewal moves the end of the last term."""
        self.wants = True
        self._redis = redis
        self._key = key

    async def run(self) -> None:
        while True:
            if self.leads():
                self._renew()
            elif self.wants:
                self._acquire()
            await asyncio.sleep(HEARTBEAT if self.leads() else 0.02)

    def leads(self) -> bool:
        return bool(self.believes) and elapsed() < self.believes[-1][1]

    def give_up(self) -> None:
        self.wants = False
        self._stop()
        if self._redis.get(self._key) == "guide":
            self._redis.delete(self._key)

    def die(self) -> None:
        """Stop without a release, like a killed task."""
        self.wants = False
        self._stop()

    def _acquire(self) -> None:
        sent_at = elapsed()
        if self._redis.set(self._key, "guide", nx=True, ex=TTL):
            self.believes.append((elapsed(), sent_at + TTL))

    def _renew(self) -> None:
        sent_at = elapsed()
        held = self._redis.get(self._key) == "guide" and self._redis.expire(self._key, TTL)
        self._believe_until(sent_at + TTL if held else sent_at)

    def _stop(self) -> None:
        self._believe_until(min(self.believes[-1][1], elapsed()))

    def _believe_until(self, until: float) -> None:
        self.believes[-1] = (self.believes[-1][0], until)


@asynccontextmanager
async def campaigning(askers: list[Asker]) -> AsyncIterator[None]:
    """Let clients campaign until the end of the block; then they stop their work and resign."""
    async with asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(asker.campaign()) for asker in askers]
        yield
        for task in asking:
            task.cancel()
    for asker in askers:
        await asker.resign()


@pytest.mark.slow
async def test_the_guides_candidate_and_sidecars_never_lead_together_and_each_gets_its_turn(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        redis = stack.enter_context(client_of(redis_server))
        askers = [Asker(RealSidecar(tmp_path, redis_server, name, **SMALL), session) for name in ("task-a", "task-b")]
        stack.enter_context(killed_at_exit(*(asker.sidecar for asker in askers)))
        for asker in askers:
            asker.sidecar.start()
        for asker in askers:
            await eventually(asker.status)
        guide = GuideCandidate(redis, key(askers[0]))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        running = tasks.create_task(guide.run())
        for give_up in (guide.give_up, guide.die):
            await _turns(guide, askers, give_up)
        running.cancel()
    ours = [(begin, end) for asker in askers for begin, end, _ in asker.believes]
    assert len(guide.believes) >= 2
    overlaps = [(a, b) for a in ours for b in guide.believes if a[0] < b[1] and b[0] < a[1]]
    assert overlaps == []
    one, other = (asker.believes for asker in askers)
    assert [(a, b) for a in one for b in other if a[0] < b[1] and b[0] < a[1]] == []


async def _turns(guide: GuideCandidate, askers: list[Asker], give_up: Callable[[], None]) -> None:
    """Let the guide's candidate lead for more than one ttl, and call `give_up`. Then let a sidecar lead for as long.

    Meanwhile the other side campaigns.

    A pause of this machine that is longer than the ttl ends a lease. The test then tries again.
    """
    for _ in range(ROUNDS):
        guide.wants = True
        await eventually(guide.leads)
        term, began = len(guide.believes), elapsed()

        def renewed(term: int = term, began: float = began) -> bool:
            return len(guide.believes) == term and guide.believes[-1][1] > began + TTL + HEARTBEAT / 2

        async with campaigning(askers):
            await eventually(lambda: renewed() or not guide.leads())
            if not renewed():
                guide.wants = False
                continue
            before = sum(len(asker.believes) for asker in askers)
            give_up()
            await eventually(lambda: sum(len(asker.believes) for asker in askers) > before)  # noqa: B023 - awaited in this round
            guide.wants = True
            began = elapsed()

            def led(began: float = began) -> bool:
                return any(asker.believes and asker.believes[-1][1] > began + TTL for asker in askers)

            await eventually(lambda: led() or guide.leads())
            if led():
                return
            guide.give_up()
    raise AssertionError("in each turn one side lost its lease while the other side campaigned")
