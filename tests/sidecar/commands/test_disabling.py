"""`disable --reason`: the key gets the usual value DISABLED, and the fence stores a reason for this disable only."""

import json
import os
import socket

import pytest
from redis import Redis

from sidecar.commands.disabling import operator
from sidecar.scripts import script
from tests.sidecar.commands.test_operator import KEY, Run
from tests.sidecar.commands.test_operator import run as run
from tests.sidecar.conftest import command
from tests.support.redis_rights import LEAST, give, user
from tests.support.script_caller import FENCE, Caller
from tests.support.subscribers import message, subscribed

LEASE = "background_services"
REASON = "the database moves at 04:00; ask Ana"
BY = f"@{socket.gethostname()}"
FIELDS = {"disabled_by", "disabled_reason", "disabled_until"}


def shown(run: Run) -> str:
    """The output of `leaders` without its line breaks."""
    status, output, _ = run("leaders")
    assert status == 0
    return " ".join(output.split())


def stored(redis: Redis) -> dict[str, str]:
    """The fields of the fence that describe a disable: its author, its reason and its end."""
    return {str(name): str(value) for name, value in redis.hgetall(FENCE).items() if name in FIELDS}


def test_disable_sets_the_key_to_disabled_and_shows_the_reason_and_its_author(redis: Redis, run: Run) -> None:
    assert run("disable", LEASE, "3600", "--reason", REASON)[0] == 0
    assert redis.get(KEY) == "DISABLED"
    assert 3590 < redis.ttl(KEY) <= 3600
    assert f"{LEASE}: disabled by " in shown(run)
    assert f"{BY}: {REASON}" in shown(run)


def test_a_disable_shorter_than_the_ttl_of_a_leader_warns_that_a_cut_off_leader_still_acts(
    redis: Redis, run: Run
) -> None:
    Caller(redis).acquire()
    assert (
        "another task can lead in 29 s; a leader that is cut off from Redis acts for up to 30 s"
        in run("disable", LEASE, "29")[1]
    )
    redis.delete(KEY)
    Caller(redis).acquire()
    assert "cut off" not in run("disable", LEASE, "30")[1]


def test_enable_removes_the_reason(redis: Redis, run: Run) -> None:
    run("disable", LEASE, "3600", "--reason", REASON)
    assert stored(redis).keys() == FIELDS
    assert run("enable", LEASE)[0] == 0
    assert not stored(redis)


def test_enable_notifies_direct_and_relayed_watches(redis: Redis, run: Run) -> None:
    run("disable", LEASE, "3600")
    with subscribed(redis, KEY, 1, 1) as (directs, relays):
        assert run("enable", LEASE)[0] == 0
        assert [message(each) for each in (*directs, *relays)] == ["enabled", "vacant"]


def test_a_disable_without_a_reason_shows_its_author_and_no_earlier_reason(redis: Redis, run: Run) -> None:
    run("disable", LEASE, "3600", "--reason", REASON)
    run("disable", LEASE, "3600")
    assert BY in shown(run)
    assert REASON not in shown(run)


@pytest.mark.parametrize("by_hand", [["SET", KEY, "DISABLED", "EX", "7200"], ["SET", KEY, "DISABLED"], ["DEL", KEY]])
def test_a_reason_is_shown_only_for_its_own_disable(redis: Redis, run: Run, by_hand: list[str]) -> None:
    run("disable", LEASE, "3600", "--reason", REASON)
    command(redis, *by_hand)
    assert "disabled by" not in shown(run)


def test_a_reason_is_not_shown_once_a_candidate_leads(redis: Redis, run: Run) -> None:
    run("disable", LEASE, "3600", "--reason", REASON)
    redis.delete(KEY)
    assert Caller(redis).acquire().outcome == "acquired"
    assert "disabled by" not in shown(run)
    document = json.loads(run("leaders", "--json")[1])["leases"][LEASE]
    assert (document["disabled_by"], document["reason"]) == (None, None)


def test_the_reason_works_with_a_hash_tag_in_the_key(redis: Redis, run: Run) -> None:
    tagged = {"LEASE_KEY": "{portfolio}:{name}:leader"}
    run("disable", LEASE, "3600", "--reason", REASON, **tagged)
    assert REASON in shown(run)
    assert redis.hget("fence:{portfolio}:background_services:leader", "disabled_reason") == REASON


@pytest.mark.parametrize("right", ["~fence:{portfolio:*", "+hset", "+time"])
def test_an_account_without_a_right_to_store_the_reason_can_still_disable(redis: Redis, run: Run, right: str) -> None:
    with user(redis, LEAST):
        give(redis, [each for each in LEAST if each != right])
        login = {"REDIS_USERNAME": "sidecar", "REDIS_PASSWORD": "secret"}
        status, output, errors = run("disable", LEASE, "3600", "--reason", REASON, **login)
    assert (status, errors) == (0, "")
    assert "is disabled for 3600 s" in output
    assert "the reason could not be stored beside the key" in output
    assert "user_script" not in output
    assert redis.get(KEY) == "DISABLED"
    assert not stored(redis)


@pytest.mark.parametrize("right", ["~fence:{portfolio:*", "+hset", "+time", "&portfolio:*:changed"])
def test_the_script_disables_even_if_later_commands_are_refused(any_redis: Redis, right: str) -> None:
    with user(any_redis, LEAST):
        give(any_redis, [each for each in LEAST if each != right])
        port = any_redis.connection_pool.connection_kwargs["port"]
        with Redis(port=port, username="sidecar", password="secret", decode_responses=True, protocol=2) as restricted:
            text = script("call", "disable")
            found, holder, notice, note = restricted.eval(text, 1, KEY, "60", "somebody", REASON)
    assert (found, holder, bool(notice), bool(note)) == ("vacant", "", right[0] == "&", right[0] != "&")
    assert any_redis.get(KEY) == "DISABLED"


def test_a_fence_of_the_wrong_type_loses_only_the_reason(redis: Redis, run: Run) -> None:
    redis.lpush(FENCE, "x")
    status, output, _ = run("disable", LEASE, "3600", "--reason", REASON)
    assert (status, redis.get(KEY)) == (0, "DISABLED")
    assert "the reason could not be stored beside the key (HSET: WRONGTYPE" in output


@pytest.mark.parametrize("reason", ["", "  ", "x" * 201, "a\nb", "\x1b[2J", "a\u202eb", "\udcff"])
def test_a_reason_must_be_one_short_line(redis: Redis, run: Run, reason: str) -> None:
    status, output, errors = run("disable", LEASE, "60", "--reason", reason)
    assert (status, output) == (2, "")
    assert errors == "sidecar: --reason takes one printable line of 1 to 200 characters\n"
    assert not redis.keys()


@pytest.mark.parametrize("hostile", ["a\x1b[2J\nforged", "x\n" * 1_000_000, b"\xff\x1b"])
def test_a_reason_written_by_hand_is_shown_in_one_bounded_line(redis: Redis, run: Run, hostile: str | bytes) -> None:
    run("disable", LEASE, "3600", "--reason", REASON)
    redis.hset(FENCE, mapping={"disabled_by": hostile, "disabled_reason": hostile})
    _, output, _ = run("leaders")
    assert "disabled by" in output
    assert all(line.isprintable() and len(line) <= 80 for line in output.splitlines())
    assert len(output) < 2_000
    assert len(run("leaders", "--json")[1]) < 4_000


def test_the_longest_reason_is_shown_completely(redis: Redis, run: Run) -> None:
    reason = "語" * 200
    assert run("disable", LEASE, "3600", "--reason", reason)[0] == 0
    assert json.loads(run("leaders", "--json")[1])["leases"][LEASE]["reason"] == reason


def test_a_user_without_a_name_is_shown_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user of a container may have no name."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert operator() == f"54321{BY}"
    monkeypatch.setenv("LOGNAME", "a\x1b[2J\n" + "x" * 500)
    assert operator().isprintable()
    assert len(operator()) <= 128
