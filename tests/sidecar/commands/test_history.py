"""`python -m sidecar history LEASE`: the last terms as a table and as JSON."""

import json
import re

import pytest
from redis import Redis

from sidecar.commands.history import duration
from sidecar.redis.store import history_of
from tests.sidecar.commands.test_operator import Run
from tests.sidecar.commands.test_operator import run as run
from tests.support.redis_rights import LEAST, give, user
from tests.support.script_caller import KEY, Caller

LEASE = "background_services"
HISTORY = history_of(KEY)


def test_the_newest_term_is_first_and_each_has_its_end(redis: Redis, run: Run) -> None:
    first = Caller(redis, "1" * 32, reason="resigned")
    first.release(first.acquire().token)
    Caller(redis, "2" * 32).acquire()
    redis.delete(KEY)
    Caller(redis, "3" * 32).acquire()
    status, output, errors = run("history", LEASE)
    assert (status, errors) == (0, "")
    head, *rows = [re.split(r"  +", line) for line in output.splitlines()]
    assert head == ["began (UTC)", "led for", "holder", "end"]
    assert [(row[2], row[3]) for row in rows] == [
        ("3" * 32, "leads now"), ("2" * 32, "not released"), ("1" * 32, "resigned"),
    ]  # fmt: skip
    assert [row[1] for row in rows] == [rows[0][1], "-", rows[2][1]]
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d", row[0]) for row in rows)
    assert all(len(line) <= 80 for line in output.splitlines())


def test_json_has_the_shape_of_the_contract(redis: Redis, run: Run) -> None:
    caller = Caller(redis, "h" * 128, reason="step-down")
    token = caller.acquire().token
    caller.release(token)
    document = json.loads(run("history", LEASE, "--json")[1])
    assert document["lease"] == LEASE
    (term,) = document["terms"]
    assert set(term) == {"token", "holder", "acquired_at", "released_at", "end", "reason"}
    assert (term["token"], term["holder"], term["end"]) == (int(token), "h" * 128, "released")
    assert all(len(line) <= 80 for line in run("history", LEASE)[1].splitlines())


def test_a_lease_without_a_history_is_reported(redis: Redis, run: Run) -> None:
    assert run("history", LEASE) == (0, f"{LEASE}: the history contains no term\n", "")
    assert run("history", LEASE, "--json") == (0, f'{{"lease": "{LEASE}", "terms": []}}\n', "")


def test_text_written_by_hand_into_the_stream_is_escaped(redis: Redis, run: Run) -> None:
    for holder in ("a\x1b[2J\nforged", b"\xff\x1b", "x\n" * 100_000, "b\u202e"):
        redis.xadd(HISTORY, {"event": "acquire", "token": "17", "holder": holder, "reason": holder})
    redis.xadd(HISTORY, {"\x1b": "\x1b"})
    for words in (["history", LEASE], ["history", LEASE, "--json"]):
        status, output, _ = run(*words)
        assert status == 0
        assert output.removesuffix("\n").replace("\n", "").isprintable()
        assert len(output) < 4_000


@pytest.mark.parametrize("right", ["+xrevrange", "~history:{portfolio:*"])
def test_a_missing_right_is_a_one_line_error(redis: Redis, run: Run, right: str) -> None:
    with user(redis, LEAST):
        give(redis, [each for each in LEAST if each != right])
        status, output, errors = run("history", LEASE, REDIS_USERNAME="sidecar", REDIS_PASSWORD="secret")
    assert (status, output, errors.count("\n")) == (1, "", 1)
    assert "no permission for the" in errors


def test_a_history_key_of_the_wrong_type_is_a_one_line_error(redis: Redis, run: Run) -> None:
    redis.set(HISTORY, "x")
    status, output, errors = run("history", LEASE)
    assert (status, output, errors.count("\n")) == (1, "", 1)
    assert "WRONGTYPE" in errors


def test_a_duration_is_shown_in_a_suitable_unit() -> None:
    assert [duration(each) for each in (0.25, 99.0, 100.0, 7_200.0, 172_800.0)] == [
        "0.2 s", "99.0 s", "1.7 min", "2.0 h", "2.0 d",
    ]  # fmt: skip
