"""A database that accepts no writes from one task or from all: who leads, what is reported, and how work resumes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from uuid import UUID

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from service.api import store_access as probing
from service.api.store_access import StoreAccess
from service.clock import utc_now
from service.database import write_watch
from service.database.connection import Connection, StoreError
from service.database.store import Store
from service.database.write_watch import WriteWatch
from service.market.calendar import AroundTheClockCalendar
from service.portfolio.records import Loading
from service.prices.simulated import SimulatedPrices
from service.telemetry import HttpMetrics
from service.work.background import TRACKER_LEASE, Background
from service.work.metrics import WorkMetrics
from service.work.tracker import Tracker
from sidecar.client import LeaseClient, Term
from tests.support.processes import Sidecar
from tests.support.waiting import eventually
from tests.support.work_fakes import FakeTerm


@dataclass
class Task:
    """The tracker of one task, with a real database and a real sidecar."""

    store: Store
    access: StoreAccess
    background: Background
    registry: CollectorRegistry
    terms: list[int] = field(default_factory=list)

    @property
    def leads(self) -> bool:
        return self.background.leaderships[TRACKER_LEASE].is_leader


@asynccontextmanager
async def task(url: str, sidecar: Sidecar) -> AsyncIterator[Task]:
    """A task that ticks five times a second."""
    registry = CollectorRegistry()
    writes = WriteWatch()
    calendar = AroundTheClockCalendar()
    async with (
        LeaseClient(sidecar.url) as client,
        await Store.connect(url, connections=2, writes=writes) as store,
    ):

        async def connect() -> Store:
            return store

        access = StoreAccess(connect, HttpMetrics(registry), writes)
        background = Background(client, writes=writes, trouble_for=access.trouble_for, recovery=access.recovery)
        tracker = Tracker(store, SimulatedPrices(1, calendar, utc_now), calendar, WorkMetrics(registry), interval=0.2)
        found = Task(store, access, background, registry)

        async def track(term: Term) -> None:
            found.terms.append(term.token)
            await tracker.run(term)

        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(access.run()), tasks.create_task(background.run({TRACKER_LEASE: track}))]
            yield found
            for each in running:
                each.cancel()


@pytest.fixture
async def roles(samples_url: str) -> AsyncIterator[tuple[str, str, Connection]]:
    """Addresses for two roles, and a connection that may change the roles."""
    admin = await asyncpg.connect(samples_url)
    names = "role_one", "role_two"
    for name in names:
        await admin.execute(f"create role {name} login superuser")
    one, two = (samples_url.replace("//postgres@", f"//{name}@") for name in names)
    yield one, two, admin
    gone = "select count(*) = 0 from pg_stat_activity where usename = any($1)"
    await eventually(lambda: admin.fetchval(gone, names))
    for name in names:
        await admin.execute(f"drop role {name}")
    await admin.close()


async def make_read_only(admin: Connection, role: str) -> None:
    """Make the role's future sessions read-only, and end its present sessions."""
    await admin.execute(f"alter role {role} set default_transaction_read_only = on")
    await admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = $1", role)


def terms_of(tasks: list[Task]) -> int:
    return sum(len(each.terms) for each in tasks)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a leader without commits resign after 1 s instead of 30 s, and shorten the pauses and the probe interval."""
    monkeypatch.setattr(write_watch, "NOTHING_COMMITTED_LIMIT", 1.0)
    monkeypatch.setattr(write_watch, "RESIGN_PAUSE", (0.5, 2.0))
    monkeypatch.setattr(probing, "PROBE_INTERVAL", 0.1)


async def test_a_leader_that_cannot_write_leaves_the_lead_to_a_task_that_can(
    roles: tuple[str, str, Connection], new_sidecar: Callable[..., Sidecar], stack: AsyncExitStack
) -> None:
    first_url, second_url, admin = roles
    one, other = [await stack.enter_async_context(new_sidecar(name)) for name in ("one", "other")]
    first = await stack.enter_async_context(task(first_url, one))
    await eventually(lambda: admin.fetchval("select count(*) > 0 from portfolio_live"))
    second = await stack.enter_async_context(task(second_url, other))
    await make_read_only(admin, "role_one")
    await eventually(lambda: second.terms and second.leads)
    assert first.access.trouble is not None and "read-only" in first.access.trouble
    assert first.registry.get_sample_value("portfolio_database_up") == 1  # the database answers reads
    assert first.registry.get_sample_value("portfolio_database_writable") == 0
    token = second.terms[-1]
    await eventually(lambda: admin.fetchval("select count(*) > 0 from portfolio_live where token = $1", token))
    assert second.access.trouble is None


@pytest.mark.slow
async def test_if_no_task_can_write_the_lead_hardly_moves_and_the_work_resumes_once_one_can(
    roles: tuple[str, str, Connection], new_sidecar: Callable[..., Sidecar], stack: AsyncExitStack
) -> None:
    *urls, admin = roles
    sidecars = [await stack.enter_async_context(new_sidecar(name)) for name in ("one", "other")]
    tasks = [await stack.enter_async_context(task(*each)) for each in zip(urls, sidecars, strict=True)]
    await eventually(lambda: admin.fetchval("select count(*) > 0 from portfolio_live"))
    for role in ("role_one", "role_two"):
        await make_read_only(admin, role)
    began, before = time.monotonic(), terms_of(tasks)
    await eventually(lambda: terms_of(tasks) >= before + 4, within=60)
    assert time.monotonic() - began > 6  # 1 + 1 + 2 + 4 times the limit, minus the time since the last tick
    for role in ("role_one", "role_two"):  # the present sessions stay read-only
        await admin.execute(f"alter role {role} reset default_transaction_read_only")
    last = await admin.fetchval("select max(as_of) from portfolio_live")
    await eventually(lambda: admin.fetchval("select max(as_of) > $1 from portfolio_live", last), within=5)
    await eventually(lambda: all(each.access.trouble is None for each in tasks))


async def test_a_full_disk_is_reported_as_the_trouble_of_the_database(samples_url: str) -> None:
    writes = WriteWatch()
    admin = await asyncpg.connect(samples_url)
    async with await Store.connect(samples_url, writes=writes) as store:
        await admin.execute(
            """
            create function full_disk() returns trigger language plpgsql as $$
            begin
                raise sqlstate '53100' using message = 'could not extend file: No space left on device';
            end $$;
            create trigger full_disk before insert or update on lease_fence for each row execute function full_disk();
            """
        )
        with pytest.raises(StoreError, match="No space left"):
            await store.claim_fence(FakeTerm())
        assert writes.trouble == "could not extend file: No space left on device"
        await store.owner(UUID(int=1))  # a read succeeds on a full disk, so it does not clear the trouble
        assert "No space left" in str(writes.trouble)
        await admin.execute("drop trigger full_disk on lease_fence")
        await store.claim_fence(FakeTerm())
        assert not writes.trouble
    await admin.close()


async def test_a_full_disk_is_reported_even_if_it_prevents_only_the_load_before_the_writes(samples_url: str) -> None:
    writes, name = WriteWatch(), samples_url.rpartition("/")[2]
    admin = await asyncpg.connect(samples_url)
    await admin.execute(
        f"""
        create function public.pg_export_snapshot() returns text language plpgsql as $$
        begin
            raise sqlstate '53100' using message = 'could not write to file: No space left on device';
        end $$;
        create function full_disk() returns trigger language plpgsql as $$
        begin
            raise sqlstate '53100' using message = 'could not extend file: No space left on device';
        end $$;
        create trigger full_disk before insert on position_loading for each row execute function full_disk();
        alter database {name} set search_path = public, pg_catalog;
        """
    )
    async with await Store.connect(samples_url, writes=writes) as store:
        await store.claim_fence(FakeTerm())
        with pytest.raises(StoreError, match="could not write"):
            await store.load_positions(date(2026, 3, 2))
        assert writes.trouble == "could not write to file: No space left on device"
        await admin.execute("drop function public.pg_export_snapshot")
        await store.load_positions(date(2026, 3, 2))
        assert writes.trouble is not None, "a load commits no write, so it does not clear the trouble"
        with pytest.raises(StoreError, match="could not extend"):
            await store.record_loading(FakeTerm(), Loading(0, 1))
        assert writes.trouble == "could not extend file: No space left on device"
    await admin.close()


async def test_a_load_from_a_read_only_database_reports_no_refused_write(samples_url: str) -> None:
    writes = WriteWatch()
    read_only = f"{samples_url}?options=-c%20default_transaction_read_only%3Don"
    async with await Store.connect(read_only, writes=writes) as store:
        await store.load_positions(date(2026, 3, 2))
        assert writes.trouble is None
        with pytest.raises(StoreError, match="read-only"):
            await store.claim_fence(FakeTerm())
        assert writes.trouble is not None
