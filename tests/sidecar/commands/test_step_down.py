"""`python -m sidecar step-down LEASE` with real sidecars: who is asked, the waiting time, and the output."""

import asyncio
import json
import re
import signal
from pathlib import Path

import pytest
from redis import Redis

from ops.local.servers import RedisServer
from sidecar.commands.step_down import limit_of
from sidecar.protocol import Timings
from sidecar.scripts import script
from tests.sidecar.commands.test_operator import Run
from tests.sidecar.commands.test_operator import run as run
from tests.sidecar.conftest import client_of
from tests.sidecar.test_process import SMALL, STEADY
from tests.support.processes import Process, RealSidecar, command_of, get_json, killed_at_exit
from tests.support.redis_rights import LEAST, give, user
from tests.support.script_caller import FENCE, KEY, Caller
from tests.support.subscribers import message, subscriber
from tests.support.waiting import eventually

LEASE = "background_services"
LOGIN = {"REDIS_USERNAME": "sidecar", "REDIS_PASSWORD": "secret"}
QUICK = SMALL | {"LEASE_KEY": "portfolio:{name}:leader"}
"""Settings with which the command waits for at most six seconds."""


def sidecar(folder: Path, server: RedisServer, name: str, **settings: str) -> RealSidecar:
    """A sidecar that campaigns for the default key without a client."""
    return RealSidecar(folder, server, name, REQUIRE_CLIENT="false", **(QUICK | settings))


def asking(folder: Path, server: RedisServer, **settings: str) -> Process:
    """The command as a separate process."""
    return command_of("sidecar", folder / "output", "step-down", LEASE, REDIS_URL=server.url, **settings)


async def leads(one: RealSidecar) -> bool:
    status = await get_json(f"{one.url}/status")
    return bool(status) and status["leases"][LEASE]["state"] == "leading"


@pytest.mark.slow
async def test_step_down_prints_which_task_leads_next(
    redis: Redis, redis_server: RedisServer, tmp_path: Path, run: Run
) -> None:
    first, second = (sidecar(tmp_path, redis_server, name, **STEADY) for name in ("task-1", "task-2"))
    with killed_at_exit(first, second):
        first.start()
        await eventually(lambda: leads(first))
        second.start()
        await eventually(lambda: get_json(f"{second.url}/status"))
        before = str(redis.hget(FENCE, "token"))
        status, output, errors = await asyncio.to_thread(run, "step-down", LEASE)
        assert (status, errors) == (0, ""), errors
        asked, now = output.splitlines()
        assert asked == f"{LEASE}: asked task-1 (token {before}) to step down; waiting up to 38 s"
        assert re.fullmatch(rf"{LEASE}: task-2 leads now \(token \d+\), after \d+\.\d\d s", now)
        assert str(redis.hget(FENCE, "token")) in now
        assert await leads(second)
        terms = json.loads((await asyncio.to_thread(run, "history", LEASE, "--json"))[1])["terms"]
    assert [(term["holder"], term["end"], term["reason"]) for term in terms] == [
        ("task-2", "holding", None), ("task-1", "released", "step-down"),
    ]  # fmt: skip


async def test_the_status_is_1_if_no_other_task_acquires_the_lease(
    redis: Redis, redis_server: RedisServer, tmp_path: Path, run: Run
) -> None:
    alone = sidecar(tmp_path, redis_server, "task-1")
    with killed_at_exit(alone):
        alone.start()
        await eventually(lambda: leads(alone))
        status, line, errors = await asyncio.to_thread(run, "step-down", "--json", LEASE, **QUICK)
    document = json.loads(line)
    assert (status, document["handed_over"], document["holder"]) == (1, False, "task-1")
    assert document["token"] > document["previous_token"]
    waiting, failure = errors.splitlines()
    assert "waiting up to 6 s" in waiting
    expected = rf"sidecar: {LEASE}: no other task acquired the lease: task-1 leads again \(token \d+\)"
    assert re.fullmatch(expected, failure)


@pytest.mark.parametrize(
    ("holder", "why"),
    [
        (None, "nobody holds the lease"),
        ("DISABLED", f"it is disabled; python -m sidecar enable {LEASE} ends this"),
        ("", "an empty value holds the key without a term, and cannot be asked"),
        ("task-of-old", "task-of-old holds the key without a term, and cannot be asked"),
        (["x"], "the key is not a string: somebody must delete it"),
    ],
)
def test_step_down_of_a_lease_without_a_term_is_a_one_line_error(
    redis: Redis, run: Run, holder: str | list[str] | None, why: str
) -> None:
    redis.hset(FENCE, mapping={"token": "17", "holder": "a"})
    if isinstance(holder, list):
        redis.lpush(KEY, *holder)
    elif holder is not None:
        redis.set(KEY, holder)
    expected = f"sidecar: {LEASE}: nobody was asked to step down: {why}\n"
    assert run("step-down", LEASE, **QUICK) == (1, "", expected)
    assert not redis.hexists(FENCE, "step_down")


def test_the_error_of_a_disabled_lease_contains_the_reason(redis: Redis, run: Run) -> None:
    run("disable", LEASE, "60", "--reason", "the database moves")
    assert ": the database moves; python -m sidecar enable" in run("step-down", LEASE)[2]


def ask(redis: Redis, token: str) -> str:
    text = script("call", "prelude", "step_down")
    outcome: str = redis.eval(text, 2, KEY, FENCE, "", "1", str(2**53), "0", token, "")[0]
    return outcome


def test_the_script_asks_only_the_holder_of_the_named_term(any_redis: Redis) -> None:
    """The lease may change between the command's look and its request."""
    caller, other = Caller(any_redis), Caller(any_redis, "b")
    first = caller.acquire().token
    caller.release(first)
    assert ask(any_redis, first) == "vacant"
    any_redis.set(KEY, "DISABLED")
    assert ask(any_redis, first) == "disabled"
    any_redis.set(KEY, "task-of-old")
    assert ask(any_redis, first) == "changed"
    any_redis.delete(KEY)
    second = other.acquire().token
    assert ask(any_redis, first) == "changed"
    assert not any_redis.hexists(FENCE, "step_down")
    with subscriber(any_redis, f"{KEY}:changed") as watch:
        assert ask(any_redis, second) == "asked"
        assert message(watch) == "step-down"
    assert any_redis.hget(FENCE, "step_down") == second
    assert any_redis.get(KEY) == "b", "only the holder itself deletes the key"


async def test_step_down_stops_waiting_for_a_silent_holder_at_the_limit(redis: Redis, run: Run) -> None:
    caller = Caller(redis)
    token = caller.acquire().token
    status, output, errors = await asyncio.to_thread(run, "step-down", LEASE, **QUICK)
    assert (status, f"asked a (token {token})" in output) == (1, True)
    assert errors.startswith(f"sidecar: {LEASE}: a has not released the lease within 6 s;")


async def test_step_down_reports_a_lease_that_nobody_acquires(
    redis: Redis, redis_server: RedisServer, tmp_path: Path
) -> None:
    caller = Caller(redis)
    token = caller.acquire().token
    async with asking(tmp_path, redis_server, **QUICK) as asked:
        await eventually(lambda: redis.hget(FENCE, "step_down") == token)
        caller.release(token)
        assert await asked.end() == 1
        assert f"sidecar: {LEASE}: nobody acquired the lease within 6 s, and nobody leads" in asked.output


async def test_ctrl_c_ends_only_the_waiting_and_not_the_request(
    redis: Redis, redis_server: RedisServer, tmp_path: Path
) -> None:
    token = Caller(redis).acquire().token
    async with asking(tmp_path, redis_server) as asked:
        await eventually(lambda: "waiting up to" in asked.output)
        assert asked.stop(signal.SIGINT) == 130, asked.output
        assert asked.output.splitlines()[1:] == [f"{LEASE}: the request remains in force; this command no longer waits"]
    assert redis.hget(FENCE, "step_down") == token


async def test_a_lost_connection_does_not_end_the_waiting(tmp_path: Path) -> None:
    tried = asyncio.Event()

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        tried.set()

    with RedisServer(tmp_path / "redis") as server:
        with client_of(server) as redis:
            Caller(redis).acquire()
        async with asking(tmp_path, server) as asked:
            await eventually(lambda: "waiting up to" in asked.output)
            server.stop()
            async with await asyncio.start_server(refuse, "127.0.0.1", server.port):
                await eventually(tried.is_set)
            server.start()
            with client_of(server) as redis:
                Caller(redis, "b").acquire()
            assert await asked.end() == 0
            assert f"{LEASE}: b leads now" in asked.output


@pytest.mark.parametrize(("value", "shown"), [("DISABLED", "DISABLED"), ("", "an empty value")])
async def test_a_value_that_names_no_candidate_ends_the_waiting(
    redis: Redis, redis_server: RedisServer, tmp_path: Path, value: str, shown: str
) -> None:
    Caller(redis).acquire()
    async with asking(tmp_path, redis_server) as asked:
        await eventually(lambda: "waiting up to" in asked.output)
        redis.set(KEY, value, ex=60)
        assert await asked.end() == 1
        assert f"sidecar: {LEASE}: nobody leads: {shown} holds the key for" in asked.output


@pytest.mark.parametrize(("right", "named"), [("+hset", "the command HSET"), ("~fence:{portfolio:*", "the key ")])
def test_a_missing_right_is_a_one_line_error_without_a_request(redis: Redis, run: Run, right: str, named: str) -> None:
    Caller(redis).acquire()
    with user(redis, LEAST):
        give(redis, [each for each in LEAST if each != right])
        status, output, errors = run("step-down", LEASE, **LOGIN)
    assert (status, output, errors.count("\n")) == (1, "", 1)
    assert f"no permission for {named}" in errors
    assert not redis.hexists(FENCE, "step_down")


def test_a_refused_notice_is_reported_and_the_request_remains(redis: Redis, run: Run) -> None:
    token = Caller(redis).acquire().token
    with user(redis, LEAST):
        give(redis, [each for each in LEAST if each != "+publish"])
        _, output, _ = run("step-down", LEASE, **LOGIN, **QUICK)
    assert "the holder reads the request at its next renewal, within 1 s" in output
    assert redis.hget(FENCE, "step_down") == token


def test_the_limit_covers_the_heartbeat_the_grant_and_the_rest_of_the_previous_holder() -> None:
    timings = Timings(ttl=60.0, heartbeat=16.0, grant_ttl=7.0, call_limit=2.0)
    assert limit_of(timings) >= timings.heartbeat + timings.grant_ttl + timings.rest
    assert limit_of(Timings()) == pytest.approx(38.0)
