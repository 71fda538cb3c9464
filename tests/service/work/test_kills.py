"""A job killed by SIGKILL at any point is continued, and writes the same rows as an undisturbed run."""

import asyncio
import json
import random
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.database.connection import Connection
from service.database.store import Store
from service.portfolio.records import JobName
from service.work.timetable import JOBS
from tests.service.work.test_jobs import Disturbed, written

SAMPLE = 5
"""Number of sampled statements at which each job is killed, in addition to every commit."""


class Worker:
    """The process of `killed_worker`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def answer(self) -> Any:
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            return json.loads(await self.process.stdout.readline())

    async def attempt(
        self, work: Disturbed, kill_at: int | None = None, *, of_commits: bool = False
    ) -> list[str] | None:
        """Make one attempt in its own process. Return its statements, or None if the process was killed."""
        assert self.process.stdin is not None
        work.token += 1
        ask = {"job": work.job, "token": work.token, "base": work.base, "kill_at": kill_at, "of_commits": of_commits}
        self.process.stdin.write(json.dumps(ask).encode() + b"\n")
        found = await self.answer()
        if found == -signal.SIGKILL:
            return None
        assert isinstance(found, list), f"the attempt ended with status {found}"
        assert await self.answer() == 0
        return found


@pytest.fixture
async def worker(migrated: str) -> AsyncIterator[Worker]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.service.work.killed_worker", migrated),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Worker(process)
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.slow
async def test_a_job_killed_anywhere_is_continued_to_the_same_rows(
    store: Store, raw: Connection, worker: Worker, job: JobName
) -> None:
    work = Disturbed(store, raw, job)
    await work.start_over()
    sent = await worker.attempt(work)
    assert sent is not None
    expected = await written(raw)
    commits = sent.count("COMMIT;")
    assert commits >= 7
    statements = random.Random(5).sample(range(1, len(sent) + 1), SAMPLE)
    for place, of_commits in [*((n, True) for n in range(1, commits + 1)), *((n, False) for n in statements)]:
        await work.start_over()
        assert await worker.attempt(work, kill_at=place, of_commits=of_commits) is None
        assert await work.attempt()
        where = f"{'commit' if of_commits else 'statement'} {place}"
        assert await written(raw) == expected, f"killed at {where} of {sent}"


@pytest.mark.parametrize("job", JOBS)
async def test_a_job_killed_repeatedly_writes_the_same_rows(
    store: Store, raw: Connection, worker: Worker, job: JobName
) -> None:
    work = Disturbed(store, raw, job)
    await work.start_over()
    sent = await worker.attempt(work)
    assert sent is not None
    expected = await written(raw)
    await work.start_over()
    moments, kills = random.Random(5), 0
    while await worker.attempt(work, kill_at=moments.randint(1, len(sent) * 2 // 3)) is None:
        kills += 1
        assert kills < 50
    assert kills >= 2
    assert await written(raw) == expected
