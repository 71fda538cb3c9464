"""The background status: every task shows the leader's records in the database, and requests share queries."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from service.api import recent
from service.database.connection import StaleTerm, StoreError
from service.database.store import Store
from service.portfolio.records import Loading
from service.work import load_progress as loading
from service.work.load_progress import report_load_progress
from tests.support.served_api import Served
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
