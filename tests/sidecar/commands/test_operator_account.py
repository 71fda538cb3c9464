"""The commands with the least rights of an operator's account, as docs/redis.md lists them."""

import asyncio
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from ops.local.servers import RedisServer
from tests.sidecar.commands.test_operator import Run
from tests.sidecar.commands.test_operator import run as run
from tests.sidecar.test_process import SMALL
from tests.support.processes import command_of
from tests.support.redis_rights import DOCUMENT, give, user
from tests.support.script_caller import FENCE, KEY, Caller
from tests.support.waiting import eventually

LEASE = "background_services"
LOGIN = {"REDIS_USERNAME": "sidecar", "REDIS_PASSWORD": "secret"}
[_LINE] = re.findall(r"^ACL SETUSER operator on >PASSWORD (.+)$", DOCUMENT, re.MULTILINE)
RIGHTS = _LINE.split()
[_WRITES] = re.findall(r"only looks .* does not need `([^`]+)`", DOCUMENT)
READS = [right for right in RIGHTS if right not in _WRITES.split()]
WATCHES = {"+client|id", "+client|tracking", "+subscribe"}
"""Rights of the watch; `tests/sidecar/redis/test_rights.py` shows what each right is for."""
ABSURD = str(2**53 - 1)


@pytest.fixture
def account(redis: Redis) -> Iterator[Redis]:
    with user(redis, RIGHTS):
        yield redis


@pytest.mark.slow
def test_every_command_works_without_a_warning(account: Redis, run: Run) -> None:
    caller = Caller(account)
    token = caller.acquire().token
    assert run("step-down", LEASE, **LOGIN, **SMALL)[1].count("\n") == 1, (
        "the holder is not a sidecar, so the command only asks"
    )
    assert account.hget(FENCE, "step_down") == token
    caller.release(token)
    assert run("disable", LEASE, "60", "--reason", "because")[1].count("\n") == 1
    assert ": because" in run("leaders")[1]
    account.hset(FENCE, "token", ABSURD)
    assert "would set" in run("fence", LEASE, "--dry-run")[1]
    status, output, _ = run("fence", LEASE, **SMALL)
    assert (status, "repaired" in output) == (0, True)
    assert run("enable", LEASE)[1].count("\n") == 1
    assert account.hget(FENCE, "disabled_reason") is None
    assert "resigned" not in run("history", LEASE)[1]


@pytest.mark.parametrize("rights", [RIGHTS, READS], ids=["operator", "reader"])
async def test_watch_shows_every_change(
    account: Redis, redis_server: RedisServer, tmp_path: Path, run: Run, rights: list[str]
) -> None:
    give(account, rights)
    assert (await asyncio.to_thread(run, "leaders", **LOGIN))[0] == 0
    assert (await asyncio.to_thread(run, "history", LEASE))[0] == 0
    async with command_of("sidecar", tmp_path / "watched", "watch", REDIS_URL=redis_server.url, **LOGIN) as watching:
        await eventually(lambda: watching.output.count("\n") == 2)
        account.set(KEY, "task-1")
        await eventually(lambda: "held by task-1" in watching.output)
        assert watching.stop(signal.SIGINT) == 0


def test_a_read_only_account_changes_nothing(account: Redis, run: Run) -> None:
    give(account, READS)
    Caller(account).acquire()
    before = account.hgetall(FENCE)
    for words in (["disable", LEASE, "60"], ["step-down", LEASE]):
        status, output, errors = run(*words, **LOGIN)
        assert (status, output, errors.count("\n")) == (1, "", 1)
        assert "no permission for the command" in errors
    assert (account.hgetall(FENCE), account.get(KEY)) == (before, "a")


@pytest.mark.parametrize("right", [right for right in READS if right[0] in "+~" and right not in WATCHES])
def test_a_read_only_account_needs_each_of_its_rights(account: Redis, run: Run, right: str) -> None:
    Caller(account).acquire()
    give(account, [each for each in READS if each != right])
    assert 1 in [run(*words, **LOGIN)[0] for words in (["leaders"], ["history", LEASE])]
