"""A store where connections are few, or were born with a fault that stays with the session."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from service.api import store_access as probing
from service.api.store_access import StoreAccess
from service.database import pool as connections
from service.database.connection import Connection, StoreError
from service.database.pool import Room, is_overload, may_stay
from service.database.store import Store
from service.telemetry import HttpMetrics
from tests.support.positions import LONG_AGO, entry
from tests.support.waiting import LIMIT, eventually

ROLE = "narrow"
PORTFOLIO = UUID(int=1)


@pytest.fixture
async def narrow(migrated: str, raw: Connection) -> AsyncIterator[str]:
    """The address of the database for a role of the test's own, that may do everything."""
    await raw.execute(f"create role {ROLE} login bypassrls; grant all on all tables in schema public to {ROLE}")
    yield migrated.replace("//postgres@", f"//{ROLE}@")
    await eventually(lambda: raw.fetchval(f"select count(*) = 0 from pg_stat_activity where usename = '{ROLE}'"))
    await raw.execute(f"drop owned by {ROLE}; drop role {ROLE}")


@asynccontextmanager
async def one_of_its_own_is_busy(store: Store) -> AsyncIterator[asyncio.Event]:
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


async def test_where_the_role_may_have_no_more_connections_a_caller_waits_for_one_of_the_stores_own(
    narrow: str, raw: Connection
) -> None:
    await raw.execute(f"alter role {ROLE} connection limit 1")
    async with await Store.connect(narrow) as store:
        async with one_of_its_own_is_busy(store) as over:
            waiting = [asyncio.create_task(store.ping()) for _ in range(20)]
            await asyncio.wait(waiting, timeout=0.5)
            assert not any(each.done() for each in waiting)  # refused by the server, and not told as an outage
            over.set()
            await asyncio.gather(*waiting)
        assert await raw.fetchval(f"select count(*) from pg_stat_activity where usename = '{ROLE}'") == 1


async def test_a_free_connection_is_taken_before_another_one_is_asked_for(narrow: str, raw: Connection) -> None:
    async with await Store.connect(narrow, connections=3) as store:
        for _ in range(3):
            store._connections._free.sort(key=lambda place: -place.get_size())  # those to be made came free last
            await store.ping()
        assert await raw.fetchval(f"select count(*) from pg_stat_activity where usename = '{ROLE}'") == 1


async def test_a_store_without_a_connection_gets_one_that_a_neighbour_does_not_use(
    narrow: str, raw: Connection
) -> None:
    await raw.execute(f"alter role {ROLE} connection limit 1")
    room = Room()
    async with (
        await Store.connect(narrow, room=room) as store,
        await Store.connect(narrow, at_once=False, room=room) as neighbour,
    ):
        await neighbour.ping()
        await store.ping()
        async with one_of_its_own_is_busy(store) as over:
            waiting = asyncio.create_task(neighbour.ping())
            await asyncio.wait((waiting,), timeout=0.3)
            assert not waiting.done()
            over.set()
            await waiting
        async with neighbour._connection():
            listening = aiter(store.listen())
            hearing = asyncio.ensure_future(anext(listening))
            await asyncio.wait((hearing,), timeout=0.3)
            assert not hearing.done()
        assert (await hearing).missed
        await listening.aclose()  # type: ignore[attr-defined]


@asynccontextmanager
async def asked_all_the_time(store: Store, tasks: int) -> AsyncIterator[None]:
    """So many tasks use the store again and again."""

    async def ask() -> None:
        while True:
            await store.ping()

    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(ask()) for _ in range(tasks)]
        yield
        for each in asking:
            each.cancel()


async def test_a_caller_has_its_turn_before_one_that_asks_again_and_again(narrow: str, raw: Connection) -> None:
    await raw.execute(f"alter role {ROLE} connection limit 1")
    async with await Store.connect(narrow) as store, asked_all_the_time(store, 2):
        for _ in range(3):
            await asyncio.sleep(0.01)  # the others are at it
            await store.ping()


async def test_a_listener_gets_its_connection_although_the_store_is_asked_all_the_time(
    narrow: str, raw: Connection
) -> None:
    await raw.execute(f"alter role {ROLE} connection limit 2")
    async with await Store.connect(narrow) as store, asked_all_the_time(store, 3):
        await eventually(lambda: raw.fetchval(f"select count(*) = 2 from pg_stat_activity where usename = '{ROLE}'"))
        listening = aiter(store.listen())
        async with asyncio.timeout(30):
            assert (await anext(listening)).missed
        await store.ping()
        await listening.aclose()  # type: ignore[attr-defined]


async def test_where_nothing_comes_free_in_time_the_servers_reason_is_given(
    narrow: str, raw: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "ACQUIRE_LIMIT", 0.5)
    await raw.execute(f"alter role {ROLE} connection limit 1")
    async with await Store.connect(narrow) as store, one_of_its_own_is_busy(store):
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
        async with one_of_its_own_is_busy(store):  # nothing comes back any more
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
def test_a_poolers_words_for_no_room_are_known(text: str) -> None:
    assert is_overload(asyncpg.PostgresError.new({"S": "FATAL", "C": "XX000", "M": text}))


def test_another_refusal_is_no_overload() -> None:
    for code, text in (("28P01", "password authentication failed"), ("57P03", "the database system is starting up")):
        assert not is_overload(asyncpg.PostgresError.new({"S": "FATAL", "C": code, "M": text}))
    assert not is_overload(OSError("too many clients"))


async def test_a_session_that_began_read_only_is_replaced_once_the_database_can_be_written_to_again(
    narrow: str, raw: Connection, store: Store
) -> None:
    await store.put_positions([entry(1, "A", "1")])
    await raw.execute(f"alter role {ROLE} set default_transaction_read_only = on")
    async with await Store.connect(narrow, connections=3) as reborn:
        await asyncio.gather(*(reborn.ping() for _ in range(3)))  # three sessions, all of them read-only
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
async def test_a_session_that_began_with_a_setting_that_stops_us_is_replaced(
    setting: str, narrow: str, raw: Connection
) -> None:
    await raw.execute(f"grant pg_monitor to {ROLE}")
    await raw.execute(setting)
    async with await Store.connect(narrow, connections=1) as store:
        with pytest.raises(StoreError):
            await store._fetch(STAYING[setting])
        await raw.execute(f"alter role {ROLE} reset all")
        await store._fetch(STAYING[setting])


async def test_a_session_is_kept_after_an_error_that_is_about_a_value(migrated: str) -> None:
    async with await Store.connect(migrated, connections=1) as store:
        (before,) = await store._fetch("select pg_backend_pid()")
        for query in ("select 1 / 0", "select * from nowhere", "select 'x'::int"):
            with pytest.raises(StoreError):
                await store._fetch(query)
        assert await store._fetch("select pg_backend_pid()") == [before]
        with pytest.raises(StoreError):
            await store._fetch("do $$ begin raise sqlstate '25006'; end $$")
        assert await store._fetch("select pg_backend_pid()") != [before]


async def test_a_load_goes_on_without_the_connections_that_it_does_not_get(
    migrated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "ACQUIRE_LIMIT", 1000.0)
    monkeypatch.setattr("service.database.store.HELPER_LIMIT", 0.1)
    async with await Store.connect(migrated, connections=2) as store:
        await store.put_positions([entry(1, "A", "1")])
        async with one_of_its_own_is_busy(store), asyncio.timeout(LIMIT):
            assert len(await store.load_positions(LONG_AGO)) == 1


async def test_a_session_that_the_server_ends_in_the_middle_gives_the_server_s_reason(
    migrated: str, raw: Connection
) -> None:
    async with await Store.connect(migrated, connections=1) as store:
        with pytest.raises(StoreError, match="terminating connection"):
            await store._fetch("select pg_terminate_backend(pg_backend_pid())")
        await store.ping()


def test_what_may_stay_with_a_session_is_everything_but_what_is_about_values_and_names() -> None:
    staying = "25006 25P02 26000 42P05 42501 40001 53100 53200 57014 57P01 58030 XX000 08P01 55P03"
    sound = "22012 22P02 23505 23503 42P01 42703 P0001"
    assert all(may_stay(asyncpg.PostgresError.new({"C": code, "M": "x"})) for code in staying.split())
    assert not any(may_stay(asyncpg.PostgresError.new({"C": code, "M": "x"})) for code in sound.split())
