"""Sidecars and the operator's commands as a Redis user with few rights: everything that the rights allow works."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from ops.local.servers import RedisServer
from tests.sidecar.commands.test_operator import Run
from tests.sidecar.commands.test_operator import run as run
from tests.sidecar.conftest import client_of
from tests.sidecar.test_process import SMALL, STEADY, logged
from tests.support.processes import RealSidecar, get_json, killed_at_exit
from tests.support.redis_rights import LEAST, give, user, without
from tests.support.script_caller import KEY
from tests.support.waiting import eventually

LEASE = "background_services"
LOGIN = {"REDIS_USERNAME": "sidecar", "REDIS_PASSWORD": "secret"}


def as_user(folder: Path, redis: RedisServer, name: str, **environment: str) -> RealSidecar:
    """A sidecar that logs in as the user, and campaigns for a key that the user may access."""
    sidecar = RealSidecar(folder, redis, name, REQUIRE_CLIENT="false", **LOGIN, **environment)
    sidecar.environment["LEASE_KEY"] = "portfolio:{name}:leader"
    return sidecar


@pytest.fixture
def restricted(redis: Redis) -> Iterator[Redis]:
    with user(redis, LEAST):
        yield redis


async def state(sidecar: RealSidecar) -> str:
    status = await get_json(f"{sidecar.url}/status")
    return str(status["leases"][LEASE]["state"]) if status else ""


@pytest.mark.slow
async def test_with_the_least_rights_a_sidecar_leads_without_warnings(
    restricted: Redis, redis_server: RedisServer, tmp_path: Path
) -> None:
    sidecar = as_user(tmp_path, redis_server, "task-1", **STEADY)
    with killed_at_exit(sidecar):
        sidecar.start()
        await eventually(lambda: _is(sidecar, "leading"))
        await eventually(lambda: _watches(sidecar, "tracking"))
        sidecar.stop(signal.SIGTERM)
    assert restricted.get(KEY) is None
    assert '"level": "WARNING"' not in sidecar.output
    assert '"level": "ERROR"' not in sidecar.output


async def test_without_channels_leases_are_still_released_and_each_missing_right_is_logged_once(
    restricted: Redis, redis_server: RedisServer, tmp_path: Path
) -> None:
    give(restricted, without("&portfolio:*:changed", "&__redis__:invalidate"))
    first, second = (
        as_user(tmp_path, redis_server, name, **SMALL | {"HEARTBEAT_INTERVAL": "0.3"}) for name in ("task-1", "task-2")
    )
    with killed_at_exit(first, second):
        first.start()
        await eventually(lambda: _is(first, "leading"))
        second.start()
        await eventually(lambda: _is(second, "following"))
        restricted.set(KEY, "DISABLED", px=300)  # ends the term; after 300 ms either sidecar can lead
        await eventually(lambda: _is(first, "leading") if restricted.get(KEY) == "task-1" else _is(second, "leading"))
        leader = first if restricted.get(KEY) == "task-1" else second
        leader.stop(signal.SIGTERM)
        other = second if leader is first else first
        await eventually(lambda: _is(other, "leading"))
        await eventually(lambda: len(logged(other, "There is no watch")) == 1)
        status = await get_json(f"{other.url}/status")
    assert "the channel __redis__:invalidate" in status["watch"]["refusal"]
    assert len(logged(leader, "Releases are not published")) == 1
    assert '"level": "ERROR"' not in leader.output
    assert len(logged(other, "There is no watch")) == 1, "the watch tried again, but logged once"


def test_the_least_rights_are_enough_for_the_commands(restricted: Redis, run: Run) -> None:
    assert run("leaders", **LOGIN)[0] == 0
    assert run("disable", LEASE, "600") == (0, f"{LEASE} is disabled for 600 s; it was held by nobody\n", "")
    restricted.hset(f"fence:{{{KEY}}}", "token", str(2**53 - 1))
    assert run("fence", LEASE, "--dry-run")[0] == 0
    assert run("enable", LEASE)[0] == 0
    assert restricted.get(KEY) is None


@pytest.mark.parametrize("right", ["+publish", "&portfolio:*:changed"])
def test_without_the_right_to_publish_disable_and_enable_work_and_name_the_missing_notice(
    restricted: Redis, run: Run, right: str
) -> None:
    give(restricted, without(right))
    for words in (["disable", LEASE, "600"], ["enable", LEASE]):
        status, output, errors = run(*words, **LOGIN)
        assert (status, errors) == (0, "")
        assert f"could not be notified on the channel {KEY}:changed" in output
        assert "within its heartbeat, 10 s" in output
        assert "user_script" not in output
    assert restricted.get(KEY) is None


@pytest.mark.parametrize(
    ("right", "words", "named"),
    [
        ("+eval", ["leaders"], "the command EVAL"),
        ("+get", ["enable", LEASE], "the command GET"),
        ("+del", ["enable", LEASE], "the command DEL"),
        ("+set", ["disable", LEASE, "600"], "the command SET"),
        ("+hmget", ["fence", LEASE], "the command HMGET"),
        ("~portfolio:*", ["enable", LEASE], f"the key {KEY}"),
        ("~fence:{portfolio:*", ["leaders"], f"the key {KEY} or fence:{{{KEY}}}"),
    ],
)
def test_a_refused_command_of_the_operator_names_the_right_and_changes_nothing(
    restricted: Redis, run: Run, right: str, words: list[str], named: str
) -> None:
    restricted.set(KEY, "DISABLED", ex=600)
    give(restricted, without(right))
    status, output, errors = run(*words, **LOGIN)
    assert (status, output) == (1, "")
    assert errors == f"sidecar: no permission for {named}; docs/redis.md lists the rights that the user needs\n"
    assert restricted.get(KEY) == "DISABLED"


def test_disable_works_without_the_right_to_read_the_holder(restricted: Redis, run: Run) -> None:
    restricted.lpush(KEY, "a key of another type")
    assert run("disable", LEASE, "600", **LOGIN)[0] == 0
    assert restricted.get(KEY) == "DISABLED"
    give(restricted, without("+get"))
    text = f"{LEASE} is disabled for 600 s; it was held by a value that could not be read\n"
    assert run("disable", LEASE, "600", **LOGIN) == (0, text, "")


async def test_a_watch_of_notices_receives_disable_and_enable_at_once(
    restricted: Redis, redis_server: RedisServer, tmp_path: Path, run: Run
) -> None:
    give(restricted, without("&__redis__:invalidate"))
    sidecar = as_user(tmp_path, redis_server, "task-1", **STEADY | {"HEARTBEAT_INTERVAL": "15"})
    with killed_at_exit(sidecar):
        sidecar.start()
        await eventually(lambda: _is(sidecar, "leading"))
        await eventually(lambda: _watches(sidecar, "notices"))
        assert (await asyncio.to_thread(run, "disable", LEASE, "600", **LOGIN))[0] == 0
        await eventually(lambda: _is(sidecar, "disabled"), within=10)
        assert (await asyncio.to_thread(run, "enable", LEASE))[0] == 0
        await eventually(lambda: _is(sidecar, "leading"), within=10)
    with client_of(redis_server) as redis:
        redis.delete(KEY)


async def _is(sidecar: RealSidecar, expected: str) -> bool:
    return await state(sidecar) == expected


async def _watches(sidecar: RealSidecar, mode: str) -> bool:
    status = await get_json(f"{sidecar.url}/status")
    return bool(status) and status["watch"]["mode"] == mode
