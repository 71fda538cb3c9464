"""The parsers accept only answers of the shapes that the scripts and Redis send."""

import pytest
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import InvalidResponse

from sidecar.protocol import Outcome
from sidecar.redis.replies import number, parse, server_time
from tests.support.storing import at_port

ACQUIRED = "acquired 7 boot-1 6000 1790000000000000 0 on - kept 2 1 a b"
"""A complete answer; the holder contains a space."""


def test_a_complete_answer_is_parsed() -> None:
    reply, time, guard, notice, history = parse(ACQUIRED)
    assert (reply.outcome, reply.token, reply.tenure, reply.ttl, reply.wait) == (
        Outcome.ACQUIRED,
        7,
        "boot-1",
        6.0,
        0.0,
    )
    assert (reply.watchers, reply.direct, reply.holder) == (2, 1, "a b")
    assert (time, guard, notice, history) == (1_790_000_000_000_000, "on", None, "kept")


def test_the_largest_numbers_that_redis_can_send_are_parsed() -> None:
    reply = parse(f"fence_ahead {10**32 - 1} boot-1 {(1 << 63) - 1} 1790000000000000 0 - - - {10**6 - 1} 0 a")[0]
    assert (reply.token, reply.watchers, reply.direct) == (10**32 - 1, 10**6 - 1, 0)
    assert [parse(ACQUIRED.replace("6000", left))[0].ttl for left in ("0", "-1", "-2")] == [0.0, None, None]


@pytest.mark.parametrize(("left", "holder"), [("-2", None), ("-1", ""), ("0", ""), ("6000", "")])
def test_a_key_with_an_empty_value_differs_from_no_key(left: str, holder: str | None) -> None:
    reply = parse(f"held 1 boot-1 {left} 1790000000000000 0 - - - - - ")[0]
    assert reply.holder == holder


@pytest.mark.parametrize(
    "answer",
    [
        ACQUIRED.replace(" 7 ", " - "),
        ACQUIRED.replace("acquired", "won"),
        ACQUIRED.replace("6000", "soon"),
        ACQUIRED.replace(" 2 ", " many "),
        ACQUIRED.replace(" 2 ", f" {10**6} "),
        ACQUIRED.replace(" 2 ", " -1 "),
        ACQUIRED.replace(" 1 a", f" {'9' * 400} a"),
        ACQUIRED.replace(" 7 ", f" {10**32} "),
        ACQUIRED.replace("6000", "-3"),
        ACQUIRED.replace("6000", str(1 << 63)),
        ACQUIRED.replace("1790000000000000", str(1 << 63)),
        ACQUIRED.replace(" 0 ", " -1 "),
        "acquired 7 boot-1",
        7,
        None,
        [ACQUIRED],
    ],
)
def test_an_answer_of_another_shape_is_refused(answer: object) -> None:
    with pytest.raises(InvalidResponse):
        parse(answer)


def test_a_number_or_a_time_of_another_shape_is_refused() -> None:
    assert number(3) == 3
    assert server_time(["1790000000", "7"]) == 1_790_000_000_000_007
    with pytest.raises(InvalidResponse):
        number("3")
    for answer in (None, ["1790000000"], ["soon", "0"]):
        with pytest.raises(InvalidResponse):
            server_time(answer)


def test_nothing_is_written_over_a_connection_that_is_not_made() -> None:
    with pytest.raises(Disconnected):
        at_port(1)().write([("TIME",)])
