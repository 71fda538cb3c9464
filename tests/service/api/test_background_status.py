"""The background status: every task shows the leader's records in the database, and requests share queries."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import pytest

from service.api import recent
from service.database.connection import StaleTerm, StoreError
from service.database.store import Store
from service.portfolio.records import JobName, Loading
from service.work import load_progress as loading
from service.work.load_progress import report_load_progress
from service.work.price_watch import FAILURES, UNPRICED_GRACE
from sidecar.client import Leadership
from tests.support.served_api import NOON, Served
from tests.support.waiting import eventually
from tests.support.work_fakes import FakeTerm

LEASE = "background_services"


async def shown_progress(served: Served) -> Any:
    code, answer = await served.get_internal("/background/status")
    assert code == 200
    return answer["jobs"]["tracker"]["loading"]


@contextmanager
def counted(store: Store, name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[None]]:
    """Record each call of the method `name`."""
    calls: list[None] = []
    original = getattr(store, name)

    async def count() -> Any:
        calls.append(None)
        return await original()

    with monkeypatch.context() as patch:
        patch.setattr(store, name, count)
        yield calls


async def test_simultaneous_requests_share_one_query(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "MAX_AGE", 1000.0)
    with counted(served.store, "fences", monkeypatch) as calls:
        await asyncio.gather(*(served.get_internal("/background/status") for _ in range(50)))
    assert len(calls) == 1


async def test_simultaneous_requests_share_one_failed_query(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []

    async def fail() -> None:
        calls.append(None)
        raise StoreError("database: away")

    monkeypatch.setattr(recent, "MAX_AGE", 1000.0)
    monkeypatch.setattr(served.store, "fences", fail)
    answers = await asyncio.gather(*(served.get_internal("/background/status") for _ in range(20)))
    assert {answer["database"] for _, answer in answers} == {"away"}
    assert len(calls) == 1


async def test_the_databases_records_are_read_again_when_they_are_old(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "MAX_AGE", 0.0)
    with counted(served.store, "fences", monkeypatch) as calls:
        for _ in range(2):
            await served.get_internal("/background/status")
    assert len(calls) == 2


async def test_a_client_that_disconnects_does_not_cancel_the_shared_query(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, release = asyncio.Event(), asyncio.Event()
    original = served.store.fences

    async def slow() -> Any:
        asked.set()
        await release.wait()
        return await original()

    monkeypatch.setattr(served.store, "fences", slow)
    first = asyncio.create_task(served.get_internal("/background/status"))
    await asked.wait()
    second = asyncio.create_task(served.get_internal("/background/status"))
    first.cancel()
    release.set()
    code, answer = await second
    assert (code, answer["database"]) == (200, "ok")


async def test_a_task_that_does_not_lead_reports_the_leaders_progress(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "MAX_AGE", 0.0)
    monkeypatch.setattr(loading, "INTERVAL", 0.001)
    now: list[Loading | None] = [None]
    await served.store.claim_fence(FakeTerm(1, "leader", LEASE))
    term = FakeTerm(1, "leader", LEASE)
    reporting = asyncio.create_task(report_load_progress(served.store, term, lambda: now[0]))
    assert await shown_progress(served) is None
    for done in (0, 3):
        now[0] = Loading(done, 7)

        async def shows_progress(done: int = done) -> bool:
            return bool(await shown_progress(served) == {"portfolios_done": done, "portfolios": 7})

        await eventually(shows_progress)
    now[0] = None

    async def shows_none() -> bool:
        return await shown_progress(served) is None

    await eventually(shows_none)
    async with served.store._connection() as connection:
        assert await connection.fetchval("select count(*) from position_loading") == 0
    reporting.cancel()
    await asyncio.wait((reporting,))


async def test_an_older_terms_progress_is_not_shown_and_cannot_be_recorded(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "MAX_AGE", 0.0)
    await served.store.claim_fence(FakeTerm(1, "one", LEASE))
    await served.store.record_loading(FakeTerm(1, "one", LEASE), Loading(3, 7))
    assert await shown_progress(served) == {"portfolios_done": 3, "portfolios": 7}
    await served.store.claim_fence(FakeTerm(2, "two", LEASE))
    assert await shown_progress(served) is None
    with pytest.raises(StaleTerm):
        await served.store.record_loading(FakeTerm(1, "one", LEASE), Loading(4, 7))
    assert await shown_progress(served) is None
    await served.store.record_loading(FakeTerm(2, "two", LEASE), Loading(1, 7))
    await served.store.forget_loading(FakeTerm(1, "one", LEASE))
    assert await shown_progress(served) == {"portfolios_done": 1, "portfolios": 7}


async def test_old_progress_is_not_shown(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "MAX_AGE", 0.0)
    await served.store.claim_fence(FakeTerm(1, "one", LEASE))
    await served.store.record_loading(FakeTerm(1, "one", LEASE), Loading(3, 7))
    async with served.store._connection() as connection:
        await connection.execute("update position_loading set written_at = now() - interval '1 minute'")
    assert await shown_progress(served) is None


async def test_an_outage_does_not_end_the_recording_of_progress(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recent, "MAX_AGE", 0.0)
    monkeypatch.setattr(loading, "INTERVAL", 0.001)
    original, failed = served.store.record_loading, asyncio.Event()

    async def fail_once(*progress: Any) -> None:
        if not failed.is_set():
            failed.set()
            raise StoreError("database: away")
        await original(*progress)

    monkeypatch.setattr(served.store, "record_loading", fail_once)
    await served.store.claim_fence(FakeTerm(1, "one", LEASE))
    reporting = asyncio.create_task(
        report_load_progress(served.store, FakeTerm(1, "one", LEASE), lambda: Loading(3, 7))
    )

    async def shows_progress() -> bool:
        return await shown_progress(served) is not None

    await eventually(shows_progress)
    assert "the progress of loading positions is not written: database: away" in caplog.messages
    reporting.cancel()
    await asyncio.wait((reporting,))


async def record_runs(served: Served, job: JobName, days: Iterable[int], error: str | None = None) -> None:
    """Record that the job is done for these days of February 2026, or that it fails with the error."""
    async with served.store._connection() as connection:
        for day in days:
            await connection.execute(
                "insert into job_run (job, session_date, status, holder, token, error, finished_at) "
                "values ($1, $2, $3, 'leader', 1, $4, case when $3 = 'done' then now() end)",
                *(job, date(2026, 2, day), "running" if error else "done", error),
            )


async def job_texts(served: Served) -> list[str]:
    _, answer = await served.get_internal("/background/status")
    return [text for each in answer["problems"] if " unsettled " in (text := each["text"]) or " job" in text]


async def test_each_waiting_run_is_a_problem_although_later_runs_are_done(served: Served) -> None:
    """The alert JobsWait counts the runs of all sessions in the look-back, and refers to the problems."""
    await record_runs(served, "eod", range(1, 13))
    await record_runs(served, "snapshot", [*range(1, 8), 10, 12])
    await record_runs(served, "snapshot", [9, 11], "the archive is not available")
    await record_runs(served, "reconstruction", range(1, 13))
    assert await job_texts(served) == [
        "The job snapshot of 2026-02-09 fails and is tried again: the archive is not available",
        "The job snapshot of 2026-02-11 fails and is tried again: the archive is not available",
        "The job snapshot of 2026-02-08 was due 4 d 8 h ago and has not started.",
    ]


async def test_unsettled_sessions_before_the_look_back_are_a_problem(served: Served) -> None:
    for job in ("eod", "reconstruction"):
        await record_runs(served, job, range(1, 13))
    await record_runs(served, "snapshot", [1, *range(4, 13)])
    assert await job_texts(served) == [
        "Sessions are unsettled and too old to catch up: 2026-02-02, 2026-02-03. Run the snapshot by hand for each."
    ]


@pytest.mark.parametrize("leads", [True, False])
async def test_only_the_leader_reports_the_problems_of_the_prices(
    served: Served, leads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower asks for no prices, and what it knows may be from its last term."""
    monkeypatch.setattr(Leadership, "is_leader", leads)
    for _ in range(FAILURES):
        served.price_watch.failed("HTTP 403", NOON)
    served.price_watch.counted(7, 7, NOON - UNPRICED_GRACE)
    _, answer = await served.get_internal("/background/status")
    texts = [text for each in answer["problems"] if " price" in (text := each["text"])]
    assert (
        texts
        == [
            "The price source failed at least 4 times in the last ten minutes (HTTP 403).",
            "Held symbols that have never had a price: 7 of 7. The values leave them out.",
        ]
        * leads
    )
