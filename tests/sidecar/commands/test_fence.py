"""`python -m sidecar fence LEASE` on real servers: its output, and when it repairs a fence."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from redis import Redis

from sidecar.commands import fence as fence_command
from sidecar.scripts import script
from tests.sidecar.commands.test_operator import Run
from tests.sidecar.commands.test_operator import run as run
from tests.support.script_caller import FENCE, KEY, Caller

LEASE = "background_services"
DAY = 86_400 * 10**6
ABSURD = 2**53 - 1
SMALL = {"LEASE_TTL": "0.6", "HEARTBEAT_INTERVAL": "0.2", "REDIS_TIMEOUT": "0.05", "GRANT_TTL": "0.1"}


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence_command, "LOOK_EVERY", 0.05)


def now(redis: Redis) -> int:
    return Caller(redis).look().time


@contextmanager
def meanwhile(action: Callable[[], object], after: float) -> Iterator[None]:
    """Call a function while the command waits for the ttl to pass."""
    timer = threading.Timer(after, action)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_a_valid_fence_is_shown_and_not_changed(redis: Redis, run: Run) -> None:
    token = Caller(redis).acquire().token
    before = redis.hgetall(FENCE)
    status, output, _ = run("fence", LEASE)
    assert status == 0
    assert f"token {token} (20" in output
    assert "of a; a holds the key for" in output
    assert output.endswith("nothing to repair\n")
    assert redis.hgetall(FENCE) == before


def test_a_lease_that_was_never_held_needs_no_repair(redis: Redis, run: Run) -> None:
    status, output, _ = run("fence", LEASE)
    assert (status, output.splitlines()[-1]) == (0, "nothing to repair")
    assert "no token; nobody holds the key" in output
    assert not redis.keys()


@pytest.mark.parametrize("spoilt", ["ahead", "garbage", "list"])
def test_a_fence_that_refuses_every_term_is_repaired_while_the_lease_is_disabled(
    redis: Redis, run: Run, spoilt: str
) -> None:
    legitimate = int(Caller(redis, "old").acquire().token)
    if spoilt == "list":
        redis.delete(FENCE)
        redis.lpush(FENCE, "x")
    else:
        redis.hset(FENCE, "token", str(ABSURD) if spoilt == "ahead" else "seven\n\x1b[31m")
    assert Caller(redis).acquire().outcome in ("fence_ahead", "bad_fence")
    assert run("disable", LEASE, "3600")[0] == 0
    began, at_least = time.monotonic(), now(redis)
    status, output, _ = run("fence", LEASE, **SMALL)
    assert status == 0, output
    assert time.monotonic() - began >= 0.6, "the lease has been disabled for one ttl"
    assert "every term is refused" in " ".join(output.split())
    assert "\x1b" not in output
    repaired = int(re.findall(r"repaired: the token is ([0-9]+)", output)[0])
    assert at_least <= repaired <= now(redis)
    assert redis.hget(FENCE, "token") == str(repaired)
    assert run("enable", LEASE)[0] == 0
    answer = Caller(redis).acquire()
    assert answer.outcome == "acquired"
    assert int(answer.token) > repaired > legitimate


def test_a_dry_run_prints_the_repair_and_changes_nothing(redis: Redis, run: Run) -> None:
    redis.hset(FENCE, mapping={"token": str(ABSURD), "holder": "old"})
    before = redis.hgetall(FENCE)
    status, output, _ = run("fence", LEASE, "--dry-run")
    assert status == 0
    assert "would set the token to 1" in output
    assert "nothing was written" in output
    assert redis.hgetall(FENCE) == before


@pytest.mark.parametrize("holder", [None, "task-1", ""])
def test_a_lease_that_is_not_disabled_is_not_repaired(redis: Redis, run: Run, holder: str | None) -> None:
    redis.hset(FENCE, mapping={"token": str(ABSURD), "holder": "old"})
    if holder is not None:
        redis.set(KEY, holder, ex=60)
    before = redis.hgetall(FENCE)
    status, _, errors = run("fence", LEASE, **SMALL)
    assert status == 1
    assert "not repaired: it is not disabled" in errors
    assert f"python -m sidecar disable {LEASE} 3600" in errors
    assert redis.hgetall(FENCE) == before


def test_a_lease_whose_disable_ends_within_a_ttl_is_not_repaired(redis: Redis, run: Run) -> None:
    redis.hset(FENCE, "token", str(ABSURD))
    redis.set(KEY, "DISABLED", ex=10)
    status, _, errors = run("fence", LEASE)
    assert status == 1
    assert re.search(r"DISABLED holds the key for (10|9\.\d)[.0]* s more, and 30\.0 s are needed", errors)


@pytest.mark.parametrize("what", ["enabled", "another term"])
def test_a_change_while_the_command_waits_ends_it_without_a_repair(redis: Redis, run: Run, what: str) -> None:
    redis.hset(FENCE, "token", str(ABSURD))
    redis.set(KEY, "DISABLED", ex=600)

    def change() -> None:
        if what == "enabled":
            redis.delete(KEY)
        else:
            redis.hset(FENCE, mapping={"token": str(ABSURD - 1), "holder": "somebody"})

    with meanwhile(change, after=0.2):
        status, _, errors = run("fence", LEASE, **SMALL)
    assert status == 1
    assert ("not disabled: nobody" if what == "enabled" else f"changed meanwhile: token {ABSURD - 1}") in errors
    assert redis.hget(FENCE, "token") == str(ABSURD if what == "enabled" else ABSURD - 1)


def fence_script(redis: Redis, state: str) -> list[str]:
    text = script("call", "prelude", "fence")
    answer: list[str] = redis.eval(text, 2, KEY, FENCE, "", "1", str(2**53), "0", "", "", "", state)
    return answer


def test_the_script_repairs_only_an_unchanged_fence_of_a_disabled_lease(any_redis: Redis) -> None:
    """The fence or the lease may change between the command's last look and its write."""
    any_redis.hset(FENCE, "token", str(ABSURD))
    state = fence_script(any_redis, "")[8]
    for holder in (None, "task-1"):
        if holder is not None:
            any_redis.set(KEY, holder)
        assert fence_script(any_redis, state)[0] == "not_disabled"
    any_redis.set(KEY, "DISABLED")
    for name, value in (("holder", "b"), ("tenure", "t"), ("token", str(ABSURD - 1))):
        any_redis.hset(FENCE, name, value)
        assert fence_script(any_redis, state)[0] == "changed"
        state = fence_script(any_redis, "")[8]
    assert any_redis.hget(FENCE, "token") == str(ABSURD - 1)
    assert fence_script(any_redis, state)[0] == "repaired"
    assert fence_script(any_redis, state)[0] == "sound"


def test_with_above_the_next_token_is_larger_than_the_databases_token(redis: Redis, run: Run) -> None:
    """The token in Redis comes from a clock that is hours behind the clock that produced the database's token."""
    Caller(redis).acquire()
    redis.set(KEY, "DISABLED", ex=600)
    of_the_database = now(redis) + 5 * 3600 * 10**6
    status, output, _ = run("fence", LEASE, "--above", str(of_the_database), **SMALL)
    assert (status, f"repaired: the token is {of_the_database}" in output) == (0, True)
    redis.delete(KEY)
    assert int(Caller(redis).acquire().token) == of_the_database + 1
    assert "nothing to repair" in run("fence", LEASE, "--above", str(of_the_database))[1]


def test_a_token_that_would_refuse_every_term_is_not_written(redis: Redis, run: Run) -> None:
    redis.set(KEY, "DISABLED", ex=600)
    status, output, errors = run("fence", LEASE, "--above", str(ABSURD), **SMALL)
    assert (status, output) == (1, "")
    assert "more than a day ahead of Redis's time" in errors
    assert f"python -m service fence {LEASE}" in errors
    assert not redis.exists(FENCE)


@pytest.mark.parametrize("token", ["-1", "9" * 17, "²", ""])
def test_an_invalid_token_is_named_in_the_error(run: Run, token: str) -> None:
    for words in (["--above", token], [f"--above={token}"]):
        assert run("fence", LEASE, *words) == (2, "", f"sidecar: --above takes a token, not {token!r}\n")


@pytest.mark.parametrize("option", ["--repair", "--dry-run=yes", "--"])
def test_an_invalid_option_is_named_in_the_error(run: Run, option: str) -> None:
    takes = "sidecar: fence takes --dry-run, --above TOKEN and --json, not"
    assert run("fence", LEASE, option) == (2, "", f"{takes} {option!r}\n")


def test_leaders_shows_an_invalid_fence_and_the_command_that_repairs_it(redis: Redis, run: Run) -> None:
    redis.hset(FENCE, mapping={"token": str(ABSURD), "holder": "old"})
    status, output, _ = run("leaders")
    assert status == 0
    assert f"python -m sidecar fence {LEASE} repairs it" in output.splitlines()[-1]
    assert "every term is refused" in " ".join(output.split())
