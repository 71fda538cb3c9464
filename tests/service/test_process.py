"""Whole processes: who leads, what happens in which order after a signal, and what survives an outage."""

import asyncio
import json
import re
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import psutil
import pytest

from ops.local.servers import PostgresServer, free_port
from service.commands.samples import SAMPLES, load_samples
from service.database.migrations import migrate
from service.database.store import Store
from tests.support.fake_sidecar import LeadingSidecar
from tests.support.processes import Service, Sidecar, command_of
from tests.support.served_api import PORTFOLIO
from tests.support.waiting import ROUNDS, eventually

LEASES = {"background_services", "daily_scheduler"}
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
NOBODY = "http://127.0.0.1:9"


async def events(response: aiohttp.ClientResponse, count: int, *, after: datetime = LONG_AGO) -> list[datetime]:
    """The instants of a stream's next `count` values that are later than `after`."""
    assert response.status == 200
    found: list[datetime] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            line = (await response.content.readline()).decode()
            assert line, "the stream has ended"
            if line.startswith("data: "):
                made = datetime.fromisoformat(json.loads(line.removeprefix("data: "))["as_of"])
                found += [made] if made > after else []
    return found


async def test_a_task_that_does_not_lead_streams_what_the_leader_writes(
    new_sidecar: Callable[..., Sidecar], new_service: Callable[..., Service], stack: AsyncExitStack
) -> None:
    first = await stack.enter_async_context(new_sidecar("one"))
    leader = await stack.enter_async_context(new_service("one", first.url))
    await eventually(leader.leads)
    second = await stack.enter_async_context(new_sidecar("two"))
    other = await stack.enter_async_context(new_service("two", second.url))

    async def follows() -> bool:
        status = await other.get_internal("/background/status")
        return {lease["state"] for lease in status["leases"].values()} == {"following"}

    await eventually(follows)
    headers = {"Last-Event-ID": "nonsense"}
    async with other.session.get(f"{other.url}/portfolios/{PORTFOLIO}/stream", headers=headers) as stream:
        assert stream.content_type == "text/event-stream"
        assert len(set(await events(stream, 4))) == 4
    assert not await other.leads()

    status = await other.get_internal("/background/status")
    assert {lease["holder"] for lease in status["leases"].values()} == {"one"}
    assert status["jobs"]["tracker"]["last_run"] is not None
    assert await eventually(lambda: last_run_of(other, "reconstruction"))

    leader.send()  # start the hand-over
    await eventually(other.leads)
    assert await leader.end() == 0
    async with other.session.get(f"{other.url}/portfolios/{PORTFOLIO}/stream") as stream:
        assert len(set(await events(stream, 3))) == 3


async def last_run_of(service: Service, job: str) -> object:
    return (await service.get_internal("/background/status"))["jobs"][job]["last_run"]


async def test_every_task_reports_the_leaders_loading_progress(
    new_sidecar: Callable[..., Sidecar], new_service: Callable[..., Service], samples_url: str, stack: AsyncExitStack
) -> None:
    database = await asyncpg.connect(samples_url)
    stack.push_async_callback(database.close)
    lock = database.transaction()
    await lock.start()
    await database.execute("lock table position")  # blocks the loading, but no request of this test
    first = await stack.enter_async_context(new_sidecar("one"))
    leader = await stack.enter_async_context(new_service("one", first.url))
    await eventually(leader.leads)
    second = await stack.enter_async_context(new_sidecar("two"))
    other = await stack.enter_async_context(new_service("two", second.url))

    async def loading(service: Service) -> object:
        return (await service.get_internal("/background/status"))["jobs"]["tracker"]["loading"]

    for service in (leader, other):

        async def loads(service: Service = service) -> bool:
            return await loading(service) == {"portfolios_done": 0, "portfolios": len(SAMPLES)}

        await eventually(loads)
    assert not await other.leads()
    await lock.rollback()
    for service in (leader, other):

        async def is_loaded(service: Service = service) -> bool:
            return await loading(service) is None

        await eventually(is_loaded)
    assert await has_value(other)


async def test_the_leader_reports_a_price_source_that_fails(
    new_sidecar: Callable[..., Sidecar], new_service: Callable[..., Service], samples_url: str, stack: AsyncExitStack
) -> None:
    database = await asyncpg.connect(samples_url)
    await database.execute(  # every tick asks for the symbols that have a price, but only some ticks ask for the others
        "insert into price_live (symbol, price, at, session_date, open, token)"
        " select distinct symbol, 1, now(), current_date, 1, 1 from position"
    )
    await database.close()
    source = {
        "PRICE_SOURCE": "alpaca",
        "ALPACA_DATA_URL": NOBODY,
        "APCA_API_KEY_ID": "id",
        "APCA_API_SECRET_KEY": "secret",
    }
    sidecar = await stack.enter_async_context(new_sidecar("one"))
    leader = await stack.enter_async_context(new_service("one", sidecar.url, **source))

    async def is_reported() -> bool:
        problems = (await leader.get_internal("/background/status"))["problems"]
        return any(problem["text"].startswith("The price source failed at least ") for problem in problems)

    await eventually(is_reported)


async def test_the_work_continues_while_requests_hold_every_connection_for_http(
    new_sidecar: Callable[..., Sidecar], new_service: Callable[..., Service], samples_url: str, stack: AsyncExitStack
) -> None:
    sidecar = await stack.enter_async_context(new_sidecar("one"))
    service = await stack.enter_async_context(new_service("one", sidecar.url))
    await eventually(lambda: has_value(service))
    await eventually(lambda: last_run_of(service, "reconstruction"))  # the jobs have run
    database, locking = [await asyncpg.connect(samples_url) for _ in range(2)]
    stack.push_async_callback(database.close)
    stack.push_async_callback(locking.close)
    lock = locking.transaction()
    await lock.start()
    await locking.execute("lock table portfolio_history")
    path = f"{service.url}/portfolios/{PORTFOLIO}/history"
    requests = [asyncio.create_task(service.session.get(path)) for _ in range(10)]

    async def all_are_held() -> bool:
        held = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        return bool(await database.fetchval(held) >= 5)

    async def newest() -> datetime:
        found: datetime = await database.fetchval("select max(as_of) from portfolio_live")
        return found

    await eventually(all_are_held)
    for _ in range(3):
        before = await newest()

        async def has_ticked(before: datetime = before) -> bool:
            return await newest() > before

        await eventually(has_ticked)
    assert not any(request.done() for request in requests)
    await lock.rollback()
    for request in requests:
        (await request).close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_the_work_then_resigns_then_ends_the_connections(
    number: int, new_service: Callable[..., Service], samples_url: str
) -> None:
    for _ in range(ROUNDS):
        if await stops_in_order(number, new_service, samples_url):
            return
    raise AssertionError("in every round the connections had ended before the check")


async def stops_in_order(number: int, new_service: Callable[..., Service], samples_url: str) -> bool:
    """Stop a service and check it while it resigns. Return False if the check came too late.

    A service waits at most a second for the answer to a resign, and this process may be delayed for longer.
    """
    seen: dict[str, object] = {}
    resigned = asyncio.Event()
    release = asyncio.Event()

    async def on_resign(name: str) -> None:
        if name != "background_services":
            return
        try:
            async with service.session.get(service.url + "/healthz") as response:
                seen["healthz"] = response.status
            seen["stream has ended"] = stream.content.is_eof()
            seen["as of"] = await database.fetchval("select max(as_of) from portfolio_live")
        except aiohttp.ClientConnectionError:
            seen["healthz"] = "none"
        resigned.set()
        await release.wait()

    async with AsyncExitStack() as stack:
        sidecar = await stack.enter_async_context(LeadingSidecar(on_resign))
        service = await stack.enter_async_context(new_service("one", sidecar.url))
        database = await asyncpg.connect(samples_url)
        stack.push_async_callback(database.close)
        await eventually(lambda: has_value(service))  # until then, the service may have no connection to the database
        stream = await service.session.get(f"{service.url}/portfolios/{PORTFOLIO}/stream")
        stack.callback(stream.close)
        await events(stream, 3)

        service.send(number)
        async with asyncio.timeout(20):
            await resigned.wait()
        service.send(number)  # a second signal changes nothing
        if seen["healthz"] == "none" or seen["stream has ended"]:
            return False
        assert seen["healthz"] == 503
        release.set()
        await stream.content.read()  # raises if the stream was cut
        while service.is_running:  # send signals until the process ends
            service.send(number)
            await asyncio.sleep(0.001)
        assert service.started.returncode == 0
        assert set(sidecar.resigned) == LEASES
        assert await database.fetchval("select max(as_of) from portfolio_live") == seen["as of"]
        assert service.messages()[-1] == "stopped"
        assert "Traceback" not in service.output
    return True


async def test_a_service_without_database_and_sidecar_serves_and_reports_both(
    new_service: Callable[..., Service], stack: AsyncExitStack
) -> None:
    dsn = f"postgresql://app:topsecret@127.0.0.1:{free_port()}/none"
    service = await stack.enter_async_context(new_service("one", NOBODY, DATABASE_URL=dsn))
    health = await eventually(lambda: with_trouble(service))
    neighbours = {"database": "cannot connect: Connection refused", "sidecar": "no answer yet"}
    assert health == {"status": "ok", "memory": "ok", **neighbours}
    for path in ("live", "history", "stream"):
        async with service.session.get(f"{service.url}/portfolios/{PORTFOLIO}/{path}") as response:
            assert response.status == 503
            assert await response.json() == {"error": "the database is not available"}
    status = await service.get_internal("/background/status")
    assert status["leases"]["background_services"]["state"] == "unknown"
    assert status["database"] == "cannot connect: Connection refused"
    async with service.session.get(f"{service.internal_url}/metrics") as response:
        assert "\nportfolio_tracker_interval_seconds 0.2\n" in await response.text()
    service.send()
    assert await service.end() == 0
    assert "topsecret" not in service.output


async def test_a_service_without_database_reports_whether_its_sidecar_answers(
    new_sidecar: Callable[..., Sidecar], new_service: Callable[..., Service], stack: AsyncExitStack
) -> None:
    sidecar = await stack.enter_async_context(new_sidecar("one"))
    dsn = f"postgresql://app@127.0.0.1:{free_port()}/none"
    service = await stack.enter_async_context(new_service("one", sidecar.url, DATABASE_URL=dsn))

    async def reports(text: str) -> bool:
        return bool((await service.get_internal("/healthz"))["sidecar"] == text)

    await eventually(lambda: reports("ok"))
    sidecar.send()
    assert await sidecar.end() == 0
    await eventually(lambda: reports("no answer yet"))
    service.send()
    assert await service.end() == 0


async def with_trouble(service: Service) -> object:
    health = await service.get_internal("/healthz")
    return health if "connect:" in health["database"] else None


async def test_work_and_streams_resume_with_the_database(
    new_sidecar: Callable[..., Sidecar],
    session: aiohttp.ClientSession,
    tmp_path: Path,
    stack: AsyncExitStack,
) -> None:
    postgres = PostgresServer(tmp_path / "postgres", settings=("fsync=off",))
    stack.callback(postgres.stop)
    sidecar = await stack.enter_async_context(new_sidecar("one"))
    service = Service(tmp_path / "service.log", session, DATABASE_URL=postgres.url, SIDECAR_URL=sidecar.url)
    await stack.enter_async_context(service)

    await asyncio.to_thread(postgres.start)  # the server starts later than the service
    await migrate(postgres.url)
    async with await Store.connect(postgres.url, connections=1) as store:
        await load_samples(store)
    await eventually(lambda: has_value(service))

    async with session.get(f"{service.url}/portfolios/{PORTFOLIO}/stream") as stream:
        await events(stream, 2)
        await asyncio.to_thread(postgres.kill)
        await asyncio.to_thread(postgres.start)
        await events(stream, 3, after=datetime.now(UTC))
    service.send()
    assert await service.end() == 0
    assert "Traceback" not in service.output


async def test_a_frozen_database_does_not_delay_the_exit_beyond_its_limit(
    session: aiohttp.ClientSession, tmp_path: Path, stack: AsyncExitStack
) -> None:
    async def on_resign(name: str) -> None:
        pass

    postgres = stack.enter_context(PostgresServer(tmp_path / "postgres", settings=("fsync=off",)))
    await migrate(postgres.url)
    sidecar = await stack.enter_async_context(LeadingSidecar(on_resign))
    settings = {"DATABASE_URL": postgres.url, "SHUTDOWN_TIMEOUT": "3", "TRACKER_INTERVAL": "0.1"}
    leader = Service(tmp_path / "leader.log", session, SIDECAR_URL=sidecar.url, **settings)
    other = Service(tmp_path / "other.log", session, SIDECAR_URL=NOBODY, **settings)
    for service in (leader, other):
        await stack.enter_async_context(service)
    await eventually(leader.leads)

    assert postgres.process is not None
    server = psutil.Process(postgres.process.pid)
    frozen = [server, *server.children()]
    for process in frozen:
        process.suspend()
    try:
        reading = asyncio.create_task(session.get(f"{other.url}/portfolios/{PORTFOLIO}/live"))
        began = time.monotonic()
        for service in (leader, other):
            service.send()
        assert await other.end() == 0
        assert await leader.end() == ("the work did not end" in leader.output)
        assert time.monotonic() - began < 30, "the frozen database must not delay the exit"
        await asyncio.wait((reading,))
        reading.exception()
    finally:
        for process in frozen:
            process.resume()


async def has_value(service: Service) -> bool:
    async with service.session.get(f"{service.url}/portfolios/{PORTFOLIO}/live") as response:
        return response.status == 200


@pytest.mark.parametrize(("in_use", "free"), [("API_BIND", "INTERNAL_BIND"), ("INTERNAL_BIND", "API_BIND")])
async def test_a_port_in_use_is_one_line_and_exit_status_2(
    new_service: Callable[..., Service], tmp_path: Path, stack: AsyncExitStack, in_use: str, free: str
) -> None:
    service = await stack.enter_async_context(new_service("one", NOBODY))
    settings = service.environment | {free: f"127.0.0.1:{free_port()}"}
    second = command_of("service", tmp_path / "second.log", **settings)
    await stack.enter_async_context(second)
    assert await second.end() == 2
    assert second.output == f"{in_use}: cannot listen on {settings[in_use]}: Address already in use\n"


async def test_the_log_is_json_lines_with_utc_times_and_without_secrets(
    new_sidecar: Callable[..., Sidecar], new_service: Callable[..., Service], samples_url: str, stack: AsyncExitStack
) -> None:
    sidecar = await stack.enter_async_context(new_sidecar("one"))
    parts = urlsplit(samples_url)
    with_password = parts._replace(netloc=parts.netloc.replace("@", ":topsecret@")).geturl()
    service = await stack.enter_async_context(
        new_service("one", sidecar.url, DATABASE_URL=with_password, LOG_LEVEL="debug")
    )
    await eventually(service.leads)
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"this is no HTTP\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.0 400")
    writer.close()
    service.send()
    assert await service.end() == 0
    assert "exc_info" not in service.output
    for line in service.lines():
        assert {"time", "level", "logger", "message"} <= line.keys()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    began = next(line for line in service.lines() if "the work begins" in line["message"])
    assert (began["lease"] in LEASES, began["instance"], type(began["token"])) == (True, "one", int)
    assert "topsecret" not in service.output
