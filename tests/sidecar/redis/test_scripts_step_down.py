"""A step-down in the scripts on real servers: it names one term by its token and affects no other term."""

import pytest
from redis import Redis

from ops.local.servers import RedisServer
from sidecar.protocol import Kind, Outcome
from tests.sidecar.conftest import client_of
from tests.support.operator import step_down
from tests.support.redis_rights import user, without
from tests.support.script_caller import FENCE, KEY, Caller
from tests.support.storing import storing


def test_a_renewal_reports_a_step_down_to_the_holder(any_redis: Redis) -> None:
    token = Caller(any_redis).acquire().token
    step_down(any_redis, KEY)
    any_redis.pexpire(KEY, 5000)
    answer = Caller(any_redis).renew(token)
    assert (answer.outcome, answer.token, answer.holder) == ("stepping_down", token, "a")
    assert 29_000 < any_redis.pttl(KEY) <= 30_000, "the key expires after the term, as after every renewal"
    assert Caller(any_redis).release(token).outcome == "released"


def test_a_step_down_of_an_earlier_term_does_not_end_a_later_term(any_redis: Redis) -> None:
    first = Caller(any_redis).acquire().token
    Caller(any_redis).release(first)
    second = Caller(any_redis).acquire().token
    step_down(any_redis, KEY, token=first)
    assert Caller(any_redis).renew(second).outcome == "renewed"
    assert Caller(any_redis).acquire().outcome == "adopted"


def test_a_new_term_removes_the_step_down_of_the_previous_term(any_redis: Redis) -> None:
    token = Caller(any_redis).acquire().token
    step_down(any_redis, KEY)
    Caller(any_redis).release(token)
    again = Caller(any_redis, "b").acquire()
    assert again.outcome == "acquired"
    assert any_redis.hexists(FENCE, "step_down") is False
    assert Caller(any_redis, "b").renew(again.token).outcome == "renewed"


async def test_without_the_right_to_hdel_the_next_term_still_leads(any_redis: Redis) -> None:
    with user(any_redis, without("+hdel")) as connect:
        async with storing(connect) as store:
            assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
            step_down(any_redis, KEY)
            assert await store.outcome(Kind.RENEW) is Outcome.STEPPING_DOWN
            assert await store.outcome(Kind.RELEASE) is Outcome.RELEASED
            assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
            assert await store.outcome(Kind.RENEW) is Outcome.RENEWED
    assert any_redis.hexists(FENCE, "step_down")


def test_an_adopted_term_that_was_asked_to_step_down_is_released(any_redis: Redis) -> None:
    token = Caller(any_redis).acquire().token
    step_down(any_redis, KEY)
    any_redis.pexpire(KEY, 5000)
    restarted = Caller(any_redis, tenure="boot-1")
    answer = restarted.acquire()
    assert (answer.outcome, answer.token, answer.tenure) == ("stepping_down", token, "boot-1")
    assert 0 < any_redis.pttl(KEY) <= 5000
    assert Caller(any_redis).release(token).outcome == "superseded"
    assert restarted.release(token).outcome == "released"


@pytest.mark.parametrize("left", [None, 3_600_000])
def test_adopting_a_term_restores_the_ttl_of_its_key(any_redis: Redis, left: int | None) -> None:
    """A candidate that received no ttl would assume that the key has expired, and would not release it."""
    token = Caller(any_redis).acquire().token
    step_down(any_redis, KEY)
    any_redis.persist(KEY) if left is None else any_redis.pexpire(KEY, left)
    answer = Caller(any_redis, tenure="boot-1").acquire()
    assert (answer.outcome, answer.token) == ("stepping_down", token)
    assert 29_000 < answer.left <= 30_000
    assert 29_000 < any_redis.pttl(KEY) <= 30_000


def test_a_step_down_is_not_reported_to_other_candidates(any_redis: Redis) -> None:
    Caller(any_redis).acquire()
    step_down(any_redis, KEY)
    other = Caller(any_redis, "b")
    assert (other.acquire().outcome, other.look().outcome) == ("held", "held")


@pytest.mark.parametrize("text", ["", "x", "-1", "1e15", "0"])
def test_a_step_down_with_an_invalid_or_different_token_ends_no_term(any_redis: Redis, text: str) -> None:
    token = Caller(any_redis).acquire().token
    any_redis.hset(FENCE, "step_down", text)
    assert Caller(any_redis).renew(token).outcome == "renewed"


def test_a_step_down_token_with_leading_zeros_is_the_same_token(any_redis: Redis) -> None:
    token = Caller(any_redis).acquire().token
    any_redis.hset(FENCE, "step_down", f"00{token}")
    assert Caller(any_redis).renew(token).outcome == "stepping_down"


def test_a_step_down_of_a_released_term_changes_nothing(any_redis: Redis) -> None:
    token = Caller(any_redis).acquire().token
    Caller(any_redis).release(token)
    step_down(any_redis, KEY, token=token)
    assert Caller(any_redis).renew(token).outcome == "vacant"
    assert Caller(any_redis).acquire().outcome == "acquired"


def test_a_step_down_after_a_failover_leaves_no_failover_guard(any_redis_of_its_own: RedisServer) -> None:
    """Like every renewal, the leader's renewal shows that no write was lost."""
    with client_of(any_redis_of_its_own) as redis:
        leader, other = Caller(redis, guarding=True, ttl=300), Caller(redis, "b", guarding=True, ttl=300)
        token = Caller(redis, ttl=300).acquire().token
        redis.hset(FENCE, mapping={"run_id": "another", "replid": "another"})
        redis.persist(KEY)
        step_down(redis, KEY)
        assert leader.renew(token).outcome == "stepping_down"
        assert redis.pttl(KEY) > 0
        assert leader.release(token).outcome == "released"
        assert other.acquire().outcome == "acquired"
