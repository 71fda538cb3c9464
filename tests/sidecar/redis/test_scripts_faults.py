"""The scripts with a faulty lease or server: each fault has its own outcome or error, and no write is partial."""

from collections.abc import Callable

import pytest
from redis import Redis
from redis.exceptions import ReadOnlyError, ResponseError

from ops.local.servers import RedisServer
from sidecar.protocol import Outcome
from sidecar.redis.replies import parse
from sidecar.redis.script_calls import SCRIPTS
from tests.sidecar.conftest import client_of, command
from tests.support.script_caller import FENCE, KEY, Answer, Caller


def every_call(redis: Redis, token: str) -> list[str]:
    caller = Caller(redis, guarding=True)
    return [answer.outcome for answer in (caller.acquire(), caller.renew(token), caller.release(token), caller.look())]


def dumped(redis: Redis) -> list[object]:
    return [redis.dbsize(), redis.dump(KEY), redis.dump(FENCE)]


@pytest.mark.parametrize(
    "make",
    [
        lambda redis: redis.lpush(KEY, "a"),
        lambda redis: redis.hset(KEY, "a", "b"),
        lambda redis: redis.sadd(KEY, "a"),
    ],
    ids=["list", "hash", "set"],
)
def test_a_key_of_the_wrong_type_is_reported_and_not_changed(any_redis: Redis, make: Callable[[Redis], object]) -> None:
    make(any_redis)
    before = dumped(any_redis)
    assert every_call(any_redis, "1") == ["wrong_type"] * 4
    assert dumped(any_redis) == before


@pytest.mark.parametrize(
    "make",
    [
        lambda redis: redis.lpush(FENCE, "7"),
        lambda redis: redis.set(FENCE, "7"),
        lambda redis: redis.hset(FENCE, "token", "seven"),
        lambda redis: redis.hset(FENCE, "token", "-7"),
        lambda redis: redis.hset(FENCE, "token", "1e15"),
        lambda redis: redis.hset(FENCE, "token", "0x10"),
        lambda redis: redis.hset(FENCE, "token", ""),
        lambda redis: redis.hset(FENCE, "token", " 7"),
        lambda redis: redis.hset(FENCE, "token", "\u00b2"),
        lambda redis: redis.hset(FENCE, "token", "x" * 1_000_000),
    ],
    ids=["list", "string", "text", "negative", "exponent", "hexadecimal", "empty", "spaced", "unicode", "megabyte"],
)
def test_an_invalid_fence_is_reported_and_not_changed(any_redis: Redis, make: Callable[[Redis], object]) -> None:
    make(any_redis)
    before = dumped(any_redis)
    assert every_call(any_redis, "1") == ["bad_fence"] * 4
    assert dumped(any_redis) == before


DAY = 86_400 * 10**6


@pytest.mark.parametrize(
    "token",
    [
        lambda now: now + DAY + 10**7,
        lambda now: 2**53 - 1,
        lambda now: 2**53,
        lambda now: 2**64,
        lambda now: int("9" * 400),
        lambda now: "9" * 5000,
    ],
    ids=["just-over-a-day", "2^53 - 1", "2^53", "2^64", "infinite", "5000-digits"],
)
def test_every_script_refuses_a_token_more_than_a_day_ahead_and_does_not_change_it(
    any_redis: Redis, token: Callable[[int], object]
) -> None:
    any_redis.hset(FENCE, mapping={"token": str(token(Caller(any_redis).look().time)), "holder": "b"})
    before = dumped(any_redis)
    assert every_call(any_redis, "1") == ["fence_ahead"] * 4
    assert dumped(any_redis) == before
    reply, *_ = parse(any_redis.eval(SCRIPTS["release"].decode(), 2, KEY, FENCE, "a", 30_000, 2**53, 0, "", "t"))
    assert reply.outcome is Outcome.FENCE_AHEAD, "the reply is well-formed, whatever the length of the token"


@pytest.mark.parametrize("token", ["seven", str(2**53 - 1), None])
def test_a_disabled_lease_is_reported_as_disabled_even_if_its_fence_is_invalid(
    any_redis: Redis, token: str | None
) -> None:
    """The commands that repair Redis's fence or the database's fence depend on this outcome."""
    if token is None:
        any_redis.lpush(FENCE, "7")
    else:
        any_redis.hset(FENCE, "token", token)
    any_redis.set(KEY, "DISABLED", ex=600)
    before = dumped(any_redis)
    assert every_call(any_redis, "1") == ["disabled"] * 4
    assert dumped(any_redis) == before


def test_a_token_less_than_a_day_ahead_is_increased_so_that_a_clock_step_stops_no_election(any_redis: Redis) -> None:
    ahead = Caller(any_redis).look().time + DAY - 10**7
    any_redis.hset(FENCE, mapping={"token": str(ahead), "holder": "b"})
    answer = Caller(any_redis).acquire()
    assert (answer.outcome, answer.token) == ("acquired", str(ahead + 1))
    assert Caller(any_redis).renew(answer.token).outcome == "renewed"
    assert Caller(any_redis).release(answer.token).outcome == "released"


def test_a_token_far_ahead_ends_the_current_term(any_redis: Redis) -> None:
    token = Caller(any_redis).acquire().token
    any_redis.hset(FENCE, "token", str(2**53 - 2))
    assert Caller(any_redis).renew(token).outcome == "fence_ahead"
    assert any_redis.hget(FENCE, "token") == str(2**53 - 2), "no term received the token"


def test_an_invalid_fence_ends_the_current_term(any_redis: Redis) -> None:
    token = Caller(any_redis).acquire().token
    any_redis.hset(FENCE, "token", "seven")
    assert Caller(any_redis).renew(token).outcome == "bad_fence"


def test_invalid_fields_of_the_fence_other_than_the_token_do_no_harm(any_redis: Redis) -> None:
    any_redis.hset(
        FENCE,
        mapping={
            "somebody": "else's",
            "run_id": "no such",
            "changed": "x",
            "changed_at": "never",
            "tenure": "of two words",
        },
    )
    assert Caller(any_redis, guarding=True).acquire().outcome == "guarded"
    any_redis.hset(FENCE, "changed_at", "never")
    assert Caller(any_redis, guarding=True).acquire().wait == 30_000
    assert Caller(any_redis).acquire().outcome == "acquired"


def test_a_holder_may_have_any_length_and_any_character(any_redis: Redis) -> None:
    for value in ("", "two words\nand two lines", "x" * 5000):
        any_redis.set(KEY, value)
        answer = Caller(any_redis).acquire()
        assert (answer.outcome, answer.holder, answer.left) == ("held", value[:256], -1)
        assert any_redis.get(KEY) == value


def test_out_of_memory_fails_an_acquire_without_a_partial_write(any_redis: Redis) -> None:
    any_redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(ResponseError, match="not allowed when used memory"):
            Caller(any_redis).acquire()
        assert any_redis.dbsize() == 0
    finally:
        any_redis.config_set("maxmemory", "0")


@pytest.mark.parametrize("guarding", [False, True])
def test_out_of_memory_a_term_is_still_renewed_and_released(any_redis: Redis, guarding: bool) -> None:
    caller = Caller(any_redis, guarding=guarding, ttl=30_000)
    token = Caller(any_redis).acquire().token
    any_redis.config_set("maxmemory", "1")
    try:
        assert caller.renew(token).outcome == "renewed", "a renewal succeeds although the server cannot be recorded"
        any_redis.pexpire(KEY, 5000)
        assert caller.renew(token).outcome == "renewed"
        assert any_redis.pttl(KEY) > 5000
        assert caller.release(token).outcome == "released"
        assert any_redis.exists(KEY) == 0
    finally:
        any_redis.config_set("maxmemory", "0")


def test_out_of_memory_a_server_change_that_cannot_be_recorded_starts_no_term(any_redis: Redis) -> None:
    any_redis.hset(FENCE, mapping={"run_id": "f" * 40, "replid": "e" * 40, "token": "1", "holder": "b"})
    any_redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(ResponseError, match="not allowed when used memory"):
            Caller(any_redis, guarding=True).acquire()
    finally:
        any_redis.config_set("maxmemory", "0")
    assert any_redis.exists(KEY) == 0
    assert Caller(any_redis, guarding=True).acquire().wait == 30_000, "the guard counts from the time of the record"


def test_a_read_only_replica_neither_grants_nor_renews_nor_deletes(any_redis_of_its_own: RedisServer) -> None:
    with client_of(any_redis_of_its_own) as redis:
        token = Caller(redis).acquire().token
        redis.pexpire(KEY, 20_000)
        command(redis, "REPLICAOF", "127.0.0.1", "1")
        before = dumped(redis)
        calls: list[Callable[[], Answer]] = [
            Caller(redis).acquire,
            lambda: Caller(redis).renew(token),
            lambda: Caller(redis).release(token),
        ]
        for call in calls:
            with pytest.raises((ReadOnlyError, ResponseError), match="read only replica"):
                call()
        assert Caller(redis).look().outcome == "superseded"
        assert dumped(redis) == before
        command(redis, "REPLICAOF", "NO", "ONE")
        assert Caller(redis).renew(token).outcome == "renewed"


def test_a_token_with_leading_zeros_in_the_fence_is_the_same_token(any_redis: Redis) -> None:
    caller = Caller(any_redis)
    token = caller.acquire().token
    any_redis.hset(FENCE, "token", "0" * 40 + str(token))
    assert caller.renew(token).outcome == "renewed"
    assert caller.acquire().token == token
