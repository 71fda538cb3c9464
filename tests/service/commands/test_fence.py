"""`python -m service fence LEASE` with a real database, a real Redis and a real sidecar."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import aiohttp
import asyncpg
import pytest
from redis.asyncio import Redis

from ops.local.servers import RedisServer
from service.commands import fence
from service.commands.fence import NotRepaired
from service.database.connection import StaleTerm
from service.database.store import Store
from service.settings import read_settings
from tests.service.database.test_fenced_writes import DAY, NOON, waits_for_a_lock
from tests.service.portfolio.reference import nothing_held
from tests.support.processes import Service, Sidecar, command_of
from tests.support.waiting import eventually
from tests.support.work_fakes import FakeTerm

Database: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

LEASE = "background_services"
ABSURD = 2**53 - 1
NOBODY = "http://127.0.0.1:9"
VALUES = nothing_held([UUID(int=1)])


@pytest.fixture
async def database(samples_url: str, stack: AsyncExitStack) -> Database:
    connection = await asyncpg.connect(samples_url)
    stack.push_async_callback(connection.close)
    return connection


@pytest.fixture
async def store(samples_url: str, stack: AsyncExitStack) -> Store:
    return await stack.enter_async_context(await Store.connect(samples_url, connections=2))


@pytest.fixture
async def redis(redis_server: RedisServer, stack: AsyncExitStack) -> Any:
    redis: Any = Redis.from_url(redis_server.url)
    stack.push_async_callback(redis.aclose)
    return redis


@pytest.fixture
async def sidecar(new_sidecar: Callable[..., Sidecar], stack: AsyncExitStack) -> Sidecar:
    return await stack.enter_async_context(new_sidecar("one"))


async def keys_of(sidecar: Sidecar, session: aiohttp.ClientSession) -> dict[str, str]:
    async def reported() -> dict[str, str]:
        async with session.get(f"{sidecar.url}/status") as answer:
            found: dict[str, str] = (await answer.json())["keys"]
            return found

    keys: dict[str, str] = await eventually(reported)
    return keys


async def poison(database: Database, token: int = ABSURD) -> None:
    await database.execute("insert into lease_fence values ($1, $2, 'who\x1b[2J\nknows')", LEASE, token)


async def now_token(database: Database) -> int:
    found: int = await database.fetchval("select (extract(epoch from clock_timestamp()) * 1000000)::bigint")
    return found


async def command(samples_url: str, sidecar_url: str, *options: str) -> None:
    settings = read_settings(
        {"DATABASE_URL": samples_url, "SIDECAR_URL": sidecar_url, "AUTH": "off", "PRICE_SOURCE": "simulated"}
    )
    await fence.run(fence.parse([LEASE, *options]), settings)


async def test_a_token_that_refuses_every_term_is_set_to_now_while_the_lease_is_disabled(
    samples_url: str,
    sidecar: Sidecar,
    session: aiohttp.ClientSession,
    redis: Any,
    database: Database,
    store: Store,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await poison(database)
    await redis.set((await keys_of(sidecar, session))[LEASE], "DISABLED", ex=3600)
    before = await now_token(database)
    with pytest.raises(StaleTerm, match=rf"{ABSURD} .* python -m service fence {LEASE} repairs it"):
        await store.claim_fence(FakeTerm(before, "one", LEASE))

    await command(samples_url, sidecar.url, "--ttl", "2")
    said = capsys.readouterr().out
    assert r"who\x1b[2J\nknows" in said
    repaired = (await store.fences())[LEASE]
    after = await now_token(database)
    assert before < repaired.token <= after
    assert repaired.holder.startswith("repaired:")
    with pytest.raises(StaleTerm):
        await store.claim_fence(FakeTerm(before, "an older term", LEASE))
    await store.claim_fence(FakeTerm(after + 1, "two", LEASE))


async def test_no_fence_is_repaired_while_the_lease_is_not_disabled(
    samples_url: str, sidecar: Sidecar, session: aiohttp.ClientSession, redis: Any, database: Database, store: Store
) -> None:
    await poison(database)
    key = (await keys_of(sidecar, session))[LEASE]
    with pytest.raises(NotRepaired, match="no task held it"):
        await command(samples_url, sidecar.url, "--ttl", "2")
    await eventually(lambda: _is_free(redis, key))
    await redis.set(key, "another", ex=60)
    with pytest.raises(NotRepaired, match=f"held by another; first run python -m sidecar disable {LEASE} 3600"):
        await command(samples_url, sidecar.url, "--ttl", "2")
    assert (await store.fences())[LEASE].token == ABSURD


async def _is_free(redis: Any, key: str) -> bool:
    return not await redis.exists(key)


async def test_no_fence_is_repaired_if_the_lease_is_enabled_before_its_ttl_has_passed(
    samples_url: str, sidecar: Sidecar, session: aiohttp.ClientSession, redis: Any, database: Database, store: Store
) -> None:
    await poison(database)
    key = (await keys_of(sidecar, session))[LEASE]
    await redis.set(key, "DISABLED", ex=3600)
    repairing = asyncio.create_task(command(samples_url, sidecar.url, "--ttl", "600"))

    async def state() -> bool:
        async with session.get(f"{sidecar.url}/status") as answer:
            return bool((await answer.json())["leases"][LEASE]["state"] == "disabled")

    await eventually(state)
    await redis.set(key, "another", ex=60)
    with pytest.raises(NotRepaired):
        await repairing
    assert (await store.fences())[LEASE].token == ABSURD


async def test_a_dry_run_writes_nothing_and_needs_no_sidecar(
    samples_url: str, database: Database, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    await poison(database)
    await command(samples_url, NOBODY, "--dry-run")
    assert "would set the token" in capsys.readouterr().out
    assert (await store.fences())[LEASE].token == ABSURD


@pytest.mark.parametrize("ahead", [-1_000_000, 3_600_000_000, None])
async def test_a_fence_that_accepts_the_next_term_within_a_day_is_not_changed(
    samples_url: str, database: Database, store: Store, capsys: pytest.CaptureFixture[str], ahead: int | None
) -> None:
    if ahead is not None:
        await poison(database, await now_token(database) + ahead)
    before = await store.fences()
    await command(samples_url, NOBODY)
    assert capsys.readouterr().out.endswith("nothing to repair\n")
    assert await store.fences() == before


async def test_a_repair_waits_for_a_write_in_progress_and_ends_the_term(
    samples_url: str,
    sidecar: Sidecar,
    session: aiohttp.ClientSession,
    redis: Any,
    database: Database,
    store: Store,
) -> None:
    await database.execute("insert into lease_fence values ($1, $2, 'old')", LEASE, ABSURD)
    await redis.set((await keys_of(sidecar, session))[LEASE], "DISABLED", ex=3600)
    async with store.fenced(FakeTerm(ABSURD, "old", LEASE), VALUES):
        repairing = asyncio.create_task(command(samples_url, sidecar.url, "--ttl", "1"))
        await waits_for_a_lock(repairing, database)
    await repairing
    with pytest.raises(StaleTerm):
        async with store.fenced(FakeTerm(ABSURD, "old", LEASE), VALUES) as writes:
            await writes.live(DAY, NOON)


async def test_a_token_more_than_a_day_ahead_never_claims_the_fence(database: Database, store: Store) -> None:
    day = 86_400_000_000
    with pytest.raises(StaleTerm, match=f"python -m sidecar fence {LEASE}"):
        await store.claim_fence(FakeTerm(await now_token(database) + day + 60_000_000, "one", LEASE))
    assert await store.fences() == {}
    await store.claim_fence(FakeTerm(near := await now_token(database) + day - 60_000_000, "one", LEASE))
    assert (await store.fences())[LEASE].token == near


async def test_a_run_by_hand_is_refused_at_the_largest_token(database: Database, store: Store) -> None:
    await poison(database, 2**63 - 1)
    with pytest.raises(StaleTerm, match=f"python -m service fence {LEASE}"):
        await store.claim_fence_by_hand(LEASE, "hand")


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["no such lease"], 2, "invalid choice: 'no such lease'"),
        ([LEASE, "--ttl", "0"], 2, "'0' is not a number of seconds from 1 to 3600"),
        ([LEASE], 1, f"no sidecar answers at {NOBODY}"),
    ],
)
async def test_a_failed_fence_command_is_one_line_and_a_status(
    samples_url: str,
    database: Database,
    stack: AsyncExitStack,
    tmp_path: Any,
    options: list[str],
    status: int,
    said: str,
) -> None:
    await poison(database)
    settings = {"DATABASE_URL": samples_url, "SIDECAR_URL": NOBODY, "AUTH": "off", "PRICE_SOURCE": "simulated"}
    process = await stack.enter_async_context(command_of("service", tmp_path / "log", "fence", *options, **settings))
    assert await process.end() == status
    assert said in process.output
    assert "Traceback" not in process.output


@pytest.mark.slow
async def test_the_commands_of_the_alert_repair_a_service_whose_fences_refuse_every_term(
    samples_url: str,
    redis_server: RedisServer,
    new_sidecar: Callable[..., Sidecar],
    new_service: Callable[..., Service],
    session: aiohttp.ClientSession,
    redis: Any,
    database: Database,
    stack: AsyncExitStack,
    tmp_path: Path,
) -> None:
    timings = {"LEASE_TTL": "12", "HEARTBEAT_INTERVAL": "3", "GRANT_TTL": "5", "REDIS_TIMEOUT": "2"}
    sidecar = await stack.enter_async_context(new_sidecar("one", **timings))
    key = (await keys_of(sidecar, session))[LEASE]
    await poison(database)
    await redis.hset(f"fence:{{{key}}}", "token", ABSURD)
    service = await stack.enter_async_context(new_service("one", sidecar.url))

    async def run(module: str, *words: str) -> None:
        settings = {"REDIS_URL": redis_server.url, "LEASE_KEY": sidecar.environment["LEASE_KEY"], **timings}
        settings |= {"DATABASE_URL": samples_url, "SIDECAR_URL": sidecar.url, "AUTH": "off"}
        command = command_of(module, tmp_path / f"{module}-{words[0]}.log", *words, **settings)
        await stack.enter_async_context(command)
        assert await command.end() == 0, command.output

    await run("sidecar", "disable", LEASE, "600")
    await run("service", "fence", LEASE, "--ttl", "12")
    token = await database.fetchval("select token from lease_fence where lease = $1", LEASE)
    await run("sidecar", "fence", LEASE, "--above", str(token))
    assert await database.fetchval("select max(token) from portfolio_live") is None  # no term has written yet
    await run("sidecar", "enable", LEASE)

    async def works() -> bool:
        written = await database.fetchval("select max(token) from portfolio_live")
        return written is not None and written > token

    await eventually(works, within=60)
    assert await service.leads()
