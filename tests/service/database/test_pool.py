"""A store with too few connections, or with sessions that began read-only or with another harmful setting."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg
import pytest
from aiohttp import ClientSession
from prometheus_client import CollectorRegistry

from service.api import store_access as probing
from service.api.store_access import StoreAccess
from service.database import pool as connections
from service.database.connection import Connection, StoreError
from service.database.pool import PoolGroup, may_persist
from service.database.server_refusals import MORE_CONNECTIONS, is_overload
from service.database.store import Store
from service.telemetry import HttpMetrics
from tests.support.positions import LONG_AGO, entry
from tests.support.served_api import Served
from tests.support.waiting import LIMIT, eventually

ROLE = "narrow"
PORTFOLIO = UUID(int=1)


@pytest.fixture
async def narrow(migrated: str, raw: Connection) -> AsyncIterator[str]:
    """The address of the database for the test's own role, which has all rights on the tables."""
    await raw.execute(f"create role {ROLE} login bypassrls; grant all on all tables in schema public to {ROLE}")
    yield migrated.replace("//postgres@", f"//{ROLE}@")
    await eventually(lambda: raw.fetchval(f"select count(*) = 0 from pg_stat_activity where usename = '{ROLE}'"))
    await raw.execute(f"drop owned by {ROLE}; drop role {ROLE}")


@asynccontextmanager
async def busy_connection(store: Store) -> AsyncIterator[asyncio.Event]:
    """A transaction that ends when the event is set."""
    begun, over = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with store._transaction() as connection:
            await connection.fetchval("select 1")
            begun.set()
            await over.wait()

    holding = asyncio.create_task(hold())
    await begun.wait()
    try:
        yield over
    finally:
        over.set()
        await holding


async def test_dead_connections_are_replaced_once_until_the_server_answers(migrated: str) -> None:
    """To the server, a connection in an idle transaction looks like a connection whose requests do not arrive."""
    async with await Store.connect(migrated, connections=2) as store:
        await store.ping()
        for _ in range(2):
            with pytest.raises(StoreError, match="closed"):
                async with busy_connection(store):
                    assert await store.replace_dead_connections()
            async with busy_connection(store):
                assert not await store.replace_dead_connections()
                await store.ping()


async def test_at_the_roles_connection_limit_a_caller_waits_for_a_connection_of_the_store(
    narrow: str, raw: Connection
) -> None:
    await raw.execute(f"alter role {ROLE} connection limit 1")
    async with await Store.connect(narrow) as store:
        async with busy_connection(store) as over:
            waiting = [asyncio.create_task(store.ping()) for _ in range(20)]
            await eventually(lambda: store._pool.refused)
            assert not any(each.done() for each in waiting)  # the server's refusal reaches no caller
            over.set()
            await asyncio.gather(*waiting)
        assert await raw.fetchval(f"select count(*) from pg_stat_activity where usename = '{ROLE}'") == 1


async def test_a_role_that_is_allowed_one_connection_is_reported_with_the_remedy(
    narrow: str, raw: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The listener for live values keeps the only connection, and the probe gets none."""
    monkeypatch.setattr(connections, "SECOND_CONNECTION_LIMIT", 0.1)
    monkeypatch.setattr(probing, "PROBE_LIMIT", 5.0)
    monkeypatch.setattr(probing, "PROBE_INTERVAL", 0.01)
    await raw.execute(f"alter role {ROLE} connection limit 1")
    async with await Store.connect(narrow) as store:

        async def connect() -> Store:
            return store

        access = StoreAccess(connect, HttpMetrics(CollectorRegistry()))
        probe = asyncio.create_task(access.run())
        await access.connected()
        listening = store.listen()
        await anext(listening)
        trouble = f'too many connections for role "{ROLE}"; {MORE_CONNECTIONS}'
        await eventually(lambda: access.trouble == trouble)
        assert [line for line in caplog.messages if "too many" in line and "listening" not in line] == [
            f"database: {trouble}"
        ]
        assert not any("no answer" in line for line in caplog.messages)
        await raw.execute(f"alter role {ROLE} connection limit 3")
        await eventually(lambda: access.trouble is None)
        await listening.aclose()
        probe.cancel()
        await asyncio.wait((probe,))


async def test_the_background_status_has_the_probes_reason_if_its_records_wait_for_a_connection(
    narrow: str, raw: Connection, session: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "ACQUIRE_LIMIT", 1000.0)
    monkeypatch.setattr(connections, "SECOND_CONNECTION_LIMIT", 0.1)
    monkeypatch.setattr(probing, "PROBE_LIMIT", 0.1)
    monkeypatch.setattr(probing, "PROBE_INTERVAL", 0.01)
    await raw.execute(f"alter role {ROLE} connection limit 1")
    async with await Store.connect(narrow) as store:
        served = Served(store, session)
        monkeypatch.setattr(served.status._records, "_limit", 0.1)
        probe = asyncio.create_task(served.access.run())
        await served.access.connected()
        listening = store.listen()
        await anext(listening)  # the listener keeps the only connection
        trouble = f'too many connections for role "{ROLE}"; {MORE_CONNECTIONS}'
        await eventually(lambda: served.access.trouble == trouble)
        async with served.client:
            report = await served.status.report()
        await served.status.close()
        await listening.aclose()
        probe.cancel()
        await asyncio.wait((probe,))
    assert report.database == trouble
    assert any(f"The database cannot be used ({trouble})." in problem.text for problem in report.problems)


async def test_a_free_connection_is_used_before_a_new_one_is_opened(narrow: str, raw: Connection) -> None:
    async with await Store.connect(narrow, connections=3) as store:
        for _ in range(3):
            store._pool._free.sort(key=lambda place: -place.get_size())  # the unconnected slots come last
            await store.ping()
        assert await raw.fetchval(f"select count(*) from pg_stat_activity where usename = '{ROLE}'") == 1


async def test_a_store_without_a_connection_gets_an_idle_one_of_another_store(narrow: str, raw: Connection) -> None:
    await raw.execute(f"alter role {ROLE} connection limit 1")
    group = PoolGroup()
    async with (
        await Store.connect(narrow, group=group) as store,
        await Store.connect(narrow, at_once=False, group=group) as neighbour,
    ):
        await neighbour.ping()
        await store.ping()
        async with busy_connection(store) as over:
            waiting = asyncio.create_task(neighbour.ping())
            await asyncio.wait((waiting,), timeout=0.3)
            assert not waiting.done()
            over.set()
            await waiting
        async with neighbour._connection():
            listening = store.listen()
            hearing = asyncio.ensure_future(anext(listening))
            await asyncio.wait((hearing,), timeout=0.3)
            assert not hearing.done()
        assert (await hearing).missed
        await listening.aclose()


@asynccontextmanager
async def always_busy(store: Store, tasks: int) -> AsyncIterator[None]:
    """Use the store continuously in this number of tasks."""

    async def ask() -> None:
        while True:
            await store.ping()

    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(ask()) for _ in range(tasks)]
        yield
        for each in asking:
            each.cancel()


async def test_a_waiting_caller_is_served_before_a_later_one(migrated: str) -> None:
    async with await Store.connect(migrated, connections=2) as store:
        pool = store._pool
        pool._connect_after = asyncio.get_running_loop().time() + 1000.0  # only one connection is possible
        order: list[str] = []

        async def ask(who: str) -> None:
            async with pool.connection():
                order.append(who)

        async with pool.connection():
            waiting = asyncio.create_task(ask("the waiting caller"))
            for _ in range(10):
                await asyncio.sleep(0)
        await ask("the later caller")
        await waiting
        assert order == ["the waiting caller", "the later caller"]


async def test_a_listener_gets_its_connection_although_the_store_is_always_busy(narrow: str, raw: Connection) -> None:
    await raw.execute(f"alter role {ROLE} connection limit 2")
    async with await Store.connect(narrow) as store, always_busy(store, 3):
        await eventually(lambda: raw.fetchval(f"select count(*) = 2 from pg_stat_activity where usename = '{ROLE}'"))
        listening = store.listen()
        async with asyncio.timeout(30):
            assert (await anext(listening)).missed
        await store.ping()
        await listening.aclose()


async def test_a_pool_that_gave_up_a_connection_waits_for_its_busy_one(
    migrated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the pool reconnected at once, it would take back the connection that it gave up for another pool."""
    monkeypatch.setattr(connections, "GIVEN_UP_PAUSE", 1000.0)
    async with await Store.connect(migrated, connections=2) as store:
        pool = store._pool
        async with busy_connection(store) as over:
            async with busy_connection(store):
                pass
            (given_up,) = pool._free
            assert given_up.get_size() == 1
            assert await pool.give_up_connection()
            waiting = asyncio.create_task(store.ping())
            for _ in range(10):  # enough turns of the loop for the caller to take the slot
                await asyncio.sleep(0)
            assert (pool._free, given_up.get_size(), waiting.done()) == ([given_up], 0, False)
            over.set()
            await waiting
        assert given_up.get_size() == 0


async def test_the_error_has_the_servers_reason_if_no_connection_is_released_in_time(
    narrow: str, raw: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "ACQUIRE_LIMIT", 0.5)
    await raw.execute(f"alter role {ROLE} connection limit 1")
    async with await Store.connect(narrow) as store, busy_connection(store):
        with pytest.raises(StoreError, match="too many connections for role"):
            await store.ping()


async def test_a_probe_that_waits_behind_others_reports_no_outage(
    migrated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "PROBE_LIMIT", 0.5)
    monkeypatch.setattr(probing, "PROBE_INTERVAL", 0.01)
    troubles: set[str | None] = set()
    async with await Store.connect(migrated, connections=1) as store:

        async def connect() -> Store:
            return store

        access = StoreAccess(connect, HttpMetrics(CollectorRegistry()))
        probe = asyncio.create_task(access.run())
        await access.connected()
        await eventually(lambda: access.trouble is None)
        for _ in range(2):
            waiting = [asyncio.create_task(store._fetch("select pg_sleep(0.1)")) for _ in range(20)]
            while not all(each.done() for each in waiting):
                troubles.add(access.trouble)
                await asyncio.sleep(0.01)
        assert troubles == {None}
        async with busy_connection(store):  # no connection is released
            await eventually(lambda: access.trouble)
        probe.cancel()
        await asyncio.wait((probe,))


@pytest.mark.parametrize(
    "text",
    [
        "sorry, too many clients already",
        "remaining connection slots are reserved for roles with the SUPERUSER attribute",
        "no more connections allowed (max_client_conn)",
        "Max client connections reached",
        "MaxClientsInSessionMode: max clients reached - in Session mode max clients are limited to pool_size",
        "Maximum number of client connections reached",
        "client_login_timeout: too many connections",
    ],
)
def test_the_errors_of_a_full_server_or_pooler_are_recognised(text: str) -> None:
    assert is_overload(asyncpg.PostgresError.new({"S": "FATAL", "C": "XX000", "M": text}))


def test_other_refusals_do_not_count_as_overload() -> None:
    for code, text in (("28P01", "password authentication failed"), ("57P03", "the database system is starting up")):
        assert not is_overload(asyncpg.PostgresError.new({"S": "FATAL", "C": code, "M": text}))
    assert not is_overload(OSError("too many clients"))


async def test_a_session_that_began_read_only_is_replaced_once_the_database_can_be_written_to_again(
    narrow: str, raw: Connection, store: Store
) -> None:
    await store.put_positions([entry(1, "A", "1")])
    await raw.execute(f"alter role {ROLE} set default_transaction_read_only = on")
    async with await Store.connect(narrow, connections=3) as reborn:
        await asyncio.gather(*(reborn.ping() for _ in range(3)))  # three read-only sessions
        with pytest.raises(StoreError, match="read-only transaction"):
            await reborn.put_positions([entry(1, "B", "1")])
        await raw.execute(f"alter role {ROLE} reset default_transaction_read_only")
        for _ in range(3):
            await reborn.put_positions([entry(1, "B", "1")])
        await asyncio.gather(*(reborn.put_positions([entry(1, "C", "1")]) for _ in range(3)))


STAYING = {
    "alter role narrow set statement_timeout = 50": "select pg_sleep(0.2)",
    "alter role narrow set role = pg_monitor": "select * from public.portfolio for update",
}


@pytest.mark.parametrize("setting", STAYING)
async def test_a_session_that_began_with_a_harmful_setting_is_replaced(
    setting: str, narrow: str, raw: Connection
) -> None:
    await raw.execute(f"grant pg_monitor to {ROLE}")
    await raw.execute(setting)
    async with await Store.connect(narrow, connections=1) as store:
        with pytest.raises(StoreError):
            await store._fetch(STAYING[setting])
        await raw.execute(f"alter role {ROLE} reset all")
        await store._fetch(STAYING[setting])


@pytest.mark.parametrize("failing", [0, 1])
async def test_of_several_connections_the_one_with_a_harmful_setting_is_replaced(
    failing: int, narrow: str, raw: Connection
) -> None:
    """The error passes through two context managers, and only the inner manager gets the error of the server."""
    await raw.execute(f"alter role {ROLE} set statement_timeout = 50")
    async with await Store.connect(narrow, connections=2) as store:

        async def sleep() -> None:
            async with store._snapshot() as first, store._snapshot() as second:
                await (first, second)[failing].execute("select pg_sleep(0.2)")

        with pytest.raises(StoreError):
            await sleep()
        await raw.execute(f"alter role {ROLE} reset all")
        await sleep()


async def test_a_connection_is_kept_if_the_server_refuses_another_one(
    narrow: str, raw: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "ACQUIRE_LIMIT", 0.2)
    await raw.execute(f"alter role {ROLE} connection limit 1")
    async with await Store.connect(narrow, connections=2) as store:
        (before,) = await store._fetch("select pg_backend_pid()")
        with pytest.raises(StoreError, match="too many connections"):
            async with store._snapshot(), store._snapshot():
                pass
        assert await store._fetch("select pg_backend_pid()") == [before]


async def test_a_session_is_kept_after_an_error_about_a_value(migrated: str) -> None:
    async with await Store.connect(migrated, connections=1) as store:
        (before,) = await store._fetch("select pg_backend_pid()")
        for query in ("select 1 / 0", "select * from nowhere", "select 'x'::int"):
            with pytest.raises(StoreError):
                await store._fetch(query)
        assert await store._fetch("select pg_backend_pid()") == [before]
        with pytest.raises(StoreError):
            await store._fetch("do $$ begin raise sqlstate '25006'; end $$")
        assert await store._fetch("select pg_backend_pid()") != [before]


async def test_a_load_continues_without_the_connections_that_it_does_not_get(
    migrated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "ACQUIRE_LIMIT", 1000.0)
    monkeypatch.setattr("service.database.store.HELPER_LIMIT", 0.1)
    async with await Store.connect(migrated, connections=2) as store:
        await store.put_positions([entry(1, "A", "1")])
        async with busy_connection(store), asyncio.timeout(LIMIT):
            assert len(await store.load_positions(LONG_AGO)) == 1


async def test_the_error_of_a_session_that_the_server_ends_has_the_server_s_reason(
    migrated: str, raw: Connection
) -> None:
    async with await Store.connect(migrated, connections=1) as store:
        with pytest.raises(StoreError, match="terminating connection"):
            await store._fetch("select pg_terminate_backend(pg_backend_pid())")
        await store.ping()


def test_a_session_is_replaced_after_any_error_not_about_values_or_names() -> None:
    staying = "25006 25P02 26000 42P05 42501 40001 53100 53200 57014 57P01 58030 XX000 08P01 55P03"
    sound = "22012 22P02 23505 23503 42P01 42703 P0001"
    assert all(may_persist(asyncpg.PostgresError.new({"C": code, "M": "x"})) for code in staying.split())
    assert not any(may_persist(asyncpg.PostgresError.new({"C": code, "M": "x"})) for code in sound.split())
