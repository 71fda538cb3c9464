"""The API's reads, the notifications of changes, and the sample portfolios."""

import asyncio
from datetime import UTC, date, datetime
from decimal import Decimal
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from ops.local.servers import free_port
from service.commands.samples import SAMPLES, load_samples
from service.database import position_writes
from service.database.connection import END_IF_IDLE, Connection, StoreError
from service.database.live_notifications import BACKEND_QUERY, listen
from service.database.store import Store
from service.market.overrides import MarketOverride
from service.portfolio.records import Fence, JobRun
from tests.service.portfolio.reference import nothing_held
from tests.support.positions import USER, entry, held, somebody_waits_for_a_lock
from tests.support.proxy import Proxy
from tests.support.work_fakes import FakeTerm

DAY = date(2026, 3, 2)
NOON = datetime(2026, 3, 2, 17, tzinfo=UTC)


async def write(store: Store, *portfolios: int) -> None:
    await store.claim_fence(FakeTerm())
    async with store.fenced(FakeTerm(), nothing_held(UUID(int=n) for n in portfolios)) as writes:
        await writes.live(DAY, NOON)
        await writes.notify(NOON)


async def test_a_portfolio_without_a_value_yet_exists_and_has_none(store: Store) -> None:
    await store.put_positions([entry(1, "A", "1")])
    assert await store.owner(UUID(int=1)) == USER
    assert await store.owner(UUID(int=2)) is None
    assert await store.live(UUID(int=1)) is None


async def test_many_live_values_are_read_at_once(store: Store) -> None:
    await store.put_positions([entry(n, "A", "1") for n in (1, 2, 3)])
    await write(store, 1, 2)
    assert set(await store.live_many([UUID(int=n) for n in (1, 2, 3, 4)])) == {UUID(int=1), UUID(int=2)}


async def test_fences_and_overrides_are_read_as_stored(store: Store, raw: Connection) -> None:
    assert await store.fences() == {}
    assert await store.job_runs() == {}
    await store.claim_fence(FakeTerm(7, "one"))
    (fence,) = (await store.fences()).values()
    assert fence == Fence("lease", 7, "one", fence.taken_at)
    await raw.execute("insert into market_override values ('NYSE', $1, null, null, 'mourning')", DAY)
    assert await store.market_overrides("NYSE") == {DAY: MarketOverride(DAY, None, None, "mourning")}
    assert await store.market_overrides("24/7") == {}


async def test_a_column_that_a_later_migration_adds_to_the_runs_disturbs_no_open_session(
    store: Store, raw: Connection
) -> None:
    async def claimed() -> JobRun | None:
        async with store.fenced(FakeTerm(7, "one")) as writes:
            return await writes.claim("eod", DAY)

    await store.claim_fence(FakeTerm(7, "one"))
    assert await claimed() is not None
    assert len(await store.job_runs()) == len(await store.runs(DAY)) == 1
    await raw.execute("alter table job_run add column added text default 'by a later version'")
    try:
        again = await claimed()
        assert again is not None
        assert again.attempts == 2
        assert await store.job_runs() == {"eod": again}
        assert await store.runs(DAY) == {("eod", DAY): again}
    finally:
        await raw.execute("alter table job_run drop column added")


async def test_an_entry_imported_twice_exists_once_and_a_bad_entry_prevents_all(store: Store) -> None:
    for _ in range(2):
        await store.put_positions([entry(1, "A", "1")])
    assert list((await held(store, DAY)).values()) == [(("A", Decimal(1)),)]
    with pytest.raises(StoreError):
        await store.put_positions([entry(1, "B", "1"), entry(1, "C", "NaN")])
    assert list((await held(store, DAY)).values()) == [(("A", Decimal(1)),)]


@pytest.mark.parametrize("own", [True, False], ids=["a user's", "the samples'"])
async def test_a_write_that_is_cut_off_keeps_its_locks_only_for_a_limited_time(
    own: bool, migrated: str, store: Store, raw: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(position_writes, "END_IF_IDLE", END_IF_IDLE.replace("60s", "1s"))
    one = UUID(int=1)
    await store.put_positions([entry(1, "A", "1"), entry(1, "B", "1")])
    changed = [entry(1, "A", "2"), entry(1, "B", "2")]
    port = urlsplit(migrated).port
    assert port is not None
    async with Proxy(port) as proxy, asyncio.timeout(30):
        other = await Store.connect(migrated.replace(f":{port}/", f":{proxy.port}/"), connections=1)
        async with raw.transaction():
            await raw.execute("select from position where symbol = 'B' for update")
            write = other.put_own_positions(one, USER, changed) if own else other.put_positions(changed)
            cut_off = asyncio.create_task(write)
            await somebody_waits_for_a_lock(raw)
            proxy.black_hole()
        await raw.execute("delete from position where portfolio_id = $1", one)
        await proxy.cut()
        with pytest.raises(StoreError):
            await cut_off
        await other.close()


async def test_a_busy_listener_receives_many_changes_together(store: Store) -> None:
    await store.put_positions([entry(1, "A", "1")])
    notices = store.listen()
    assert (await anext(notices)).missed
    for _ in range(5):
        await write(store, 1)
    async with asyncio.timeout(20):
        assert not (await anext(notices)).missed


async def test_a_listener_whose_connection_was_lost_reports_that_it_may_have_missed_changes(
    migrated: str, raw: Connection
) -> None:
    notices = listen(migrated)
    assert (await anext(notices)).missed
    await raw.execute("select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'listen%'")
    async with asyncio.timeout(20):
        assert (await anext(notices)).missed


async def test_a_cancelled_listener_leaves_no_connection(migrated: str, raw: Connection) -> None:
    ready = asyncio.Event()

    async def on_notification() -> None:
        async for _ in listen(migrated):
            ready.set()

    hearing = asyncio.create_task(on_notification())
    await ready.wait()
    hearing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hearing
    for _ in range(1000):
        if await raw.fetchval("select count(*) from pg_stat_activity where query ilike 'listen%'") == 0:
            return
        await asyncio.sleep(0.01)
    pytest.fail("the connection is still there")


async def test_a_listener_probes_a_quiet_connection(migrated: str, raw: Connection) -> None:
    notices = listen(migrated, probe_interval=0.05)
    assert (await anext(notices)).missed
    heard = asyncio.ensure_future(anext(notices))
    for _ in range(1000):
        if await raw.fetchval("select exists (select from pg_stat_activity where query = $1)", BACKEND_QUERY):
            break
        await asyncio.sleep(0.01)
    else:
        pytest.fail("the listener sent no probe")
    assert not heard.done()
    await raw.execute("notify portfolio_live")
    async with asyncio.timeout(20):
        assert not (await heard).missed


async def test_loading_the_samples_again_changes_nothing(store: Store) -> None:
    assert await load_samples(store) == list(SAMPLES)
    first = await held(store, DAY)
    await load_samples(store)
    assert await held(store, DAY) == first
    assert len(first) == len(SAMPLES)
    assert UUID("11111111-1111-4111-8111-111111111111") in first


async def test_without_at_once_a_store_connects_when_it_is_first_used(migrated: str, raw: Connection) -> None:
    nowhere = f"postgresql://127.0.0.1:{free_port()}/none"
    async with await Store.connect(nowhere, at_once=False) as store:
        with pytest.raises(StoreError, match="cannot connect"):
            await store.ping()
    ours = "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    before = {row["pid"] for row in await raw.fetch(ours)}  # sessions of an earlier test may be about to end

    async def new() -> int:
        return len({row["pid"] for row in await raw.fetch(ours)} - before)

    async with await Store.connect(migrated, connections=2, at_once=False) as store:
        assert await new() == 0
        await store.ping()
        assert await new() == 1


async def test_the_error_for_a_database_without_tables_names_the_command(database_url: str) -> None:
    async with await Store.connect(database_url) as store:
        with pytest.raises(StoreError, match=r'"public\.portfolio" does not exist; .*python -m service migrate'):
            await load_samples(store)
