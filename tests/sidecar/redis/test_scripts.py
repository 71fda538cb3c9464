"""The scripts on real servers: the meaning of each outcome, and who may change the key."""

from pathlib import Path

import pytest
from redis import Redis

from ops.local.servers import RedisServer
from sidecar import scripts
from sidecar.election.herd import MAX_DIRECT
from sidecar.protocol import RELAY_NOTICE
from tests.sidecar.conftest import client_of
from tests.simulation.redis_model import RedisModel
from tests.support.script_caller import FENCE, KEY, Caller
from tests.support.subscribers import message, subscribed, subscriber

RELAYED = f"{KEY}:vacant:changed"
"""The channel of the candidates with a relayed watch."""


def contents(redis: Redis) -> tuple[object, ...]:
    """The key's value, the fence, whether the key has a TTL, and the number of keys in Redis."""
    return redis.get(KEY), redis.hgetall(FENCE), redis.ttl(KEY) > 0, redis.dbsize()


def test_a_vacant_lease_is_acquired_as_a_plain_string_with_a_ttl(any_redis: Redis) -> None:
    answer = Caller(any_redis).acquire()
    assert (answer.outcome, answer.holder) == ("acquired", "a")
    assert 29_000 < answer.left <= 30_000
    assert any_redis.get(KEY) == "a"
    assert 20 <= any_redis.ttl(KEY) <= 30
    assert any_redis.ttl(FENCE) == -1
    assert any_redis.hget(FENCE, "token") == answer.token


def test_the_token_is_the_servers_time_as_an_integer(any_redis: Redis) -> None:
    answer = Caller(any_redis).acquire()
    assert answer.token.isdigit()
    assert int(answer.token) == answer.time


def test_an_acquire_does_not_change_a_held_lease_and_returns_its_holder(any_redis: Redis) -> None:
    Caller(any_redis, "b").acquire()
    before = contents(any_redis)
    answer = Caller(any_redis).acquire()
    assert (answer.outcome, answer.holder) == ("held", "b")
    assert 0 < answer.left <= 30_000
    assert contents(any_redis) == before


@pytest.mark.parametrize("word", ["DISABLED", "disabled", "Disabled"])
def test_disabled_in_any_case_disables_the_lease(any_redis: Redis, word: str) -> None:
    token = Caller(any_redis).acquire().token
    any_redis.set(KEY, word, ex=3600)
    outcomes = [
        Caller(any_redis).acquire().outcome,
        Caller(any_redis).renew(token).outcome,
        Caller(any_redis).release(token).outcome,
        Caller(any_redis).look().outcome,
    ]
    assert outcomes == ["disabled"] * 4
    assert any_redis.get(KEY) == word
    assert any_redis.ttl(KEY) > 3500


def test_an_acquire_by_the_holder_adopts_the_same_term(any_redis: Redis) -> None:
    first = Caller(any_redis).acquire()
    any_redis.pexpire(KEY, 5000)
    again = Caller(any_redis, tenure="boot-1").acquire()
    assert (again.outcome, again.token) == ("adopted", first.token)
    assert 29_000 < again.left <= 30_000


def test_a_superseded_tenure_can_neither_renew_nor_release(any_redis: Redis) -> None:
    old = Caller(any_redis, tenure="boot-0")
    token = old.acquire().token
    new = Caller(any_redis, tenure="boot-1")
    new.acquire()
    assert (old.renew(token).outcome, old.release(token).outcome) == ("superseded", "superseded")
    assert (new.renew(token).outcome, new.release(token).outcome) == ("renewed", "released")


def test_renew_and_release_compare_id_and_token(any_redis: Redis) -> None:
    token = Caller(any_redis).acquire().token
    before = contents(any_redis)
    assert Caller(any_redis, "b").renew(token).outcome == "held"
    assert Caller(any_redis, "b").release(token).outcome == "held"
    other = str(int(token) - 1)
    assert Caller(any_redis).renew(other).outcome == "superseded"
    assert Caller(any_redis).release(other).outcome == "superseded"
    assert contents(any_redis) == before


def test_a_late_release_of_an_earlier_term_does_not_change_the_new_term(any_redis: Redis) -> None:
    first = Caller(any_redis).acquire().token
    Caller(any_redis).release(first)
    second = Caller(any_redis).acquire().token
    assert Caller(any_redis).release(first).outcome == "superseded"
    assert any_redis.get(KEY) == "a"
    assert Caller(any_redis).release(second).outcome == "released"


def test_a_missing_key_is_neither_renewed_nor_released(any_redis: Redis) -> None:
    token = Caller(any_redis).acquire().token
    any_redis.delete(KEY)
    assert (Caller(any_redis).renew(token).outcome, Caller(any_redis).release(token).outcome) == ("vacant", "vacant")
    assert any_redis.exists(KEY) == 0


@pytest.mark.parametrize("left", [None, 1000, 3_600_000])
def test_a_renewal_restores_the_ttl_of_its_key(any_redis: Redis, left: int | None) -> None:
    token = Caller(any_redis).acquire().token
    if left is None:
        any_redis.persist(KEY)
    else:
        any_redis.pexpire(KEY, left)
    answer = Caller(any_redis).renew(token)
    assert answer.outcome == "renewed"
    assert 29_000 < answer.left <= 30_000


def test_a_renewal_of_a_fresh_key_does_not_extend_it(any_redis: Redis) -> None:
    token = Caller(any_redis).acquire().token
    any_redis.pexpire(KEY, 28_000)
    assert 20_000 < Caller(any_redis).renew(token).left <= 28_000


def test_release_deletes_and_publishes_in_one_script(any_redis: Redis) -> None:
    token = Caller(any_redis).acquire().token
    with subscriber(any_redis, f"{KEY}:changed") as watch:
        assert Caller(any_redis).release(token)[0] == "released"
        assert message(watch) == "released"
    assert any_redis.exists(KEY) == 0
    assert any_redis.hget(FENCE, "token") == token, "the last token remains after its term"


def test_a_look_changes_nothing(any_redis_of_its_own: RedisServer) -> None:
    """The test needs its own server: on a server that was once promoted, the script records a server change."""
    with client_of(any_redis_of_its_own) as redis:
        assert Caller(redis, guarding=True).look().outcome == "vacant"
        assert redis.dbsize() == 0
        Caller(redis).acquire()
        before = contents(redis)
        assert Caller(redis).look().outcome == "superseded"
        assert Caller(redis, "b").look().outcome == "held"
        assert contents(redis) == before


def test_after_its_deadline_a_script_only_returns_the_time(any_redis: Redis) -> None:
    token = Caller(any_redis).acquire().token
    any_redis.pexpire(KEY, 5000)
    before = contents(any_redis)
    now = Caller(any_redis).look().time
    late = [
        Caller(any_redis).renew(token, deadline=now - 1),
        Caller(any_redis).release(token, deadline=now - 1),
        Caller(any_redis).acquire(deadline=0),
    ]
    assert [answer.outcome for answer in late] == ["late"] * 3
    assert all(answer.time >= now for answer in late)
    assert contents(any_redis) == before
    assert any_redis.pttl(KEY) <= 5000
    any_redis.delete(KEY)
    assert Caller(any_redis).acquire(deadline=now - 1).outcome == "late"
    assert any_redis.exists(KEY) == 0


def test_tokens_increase_within_one_microsecond_and_after_a_clock_step_back(any_redis: Redis) -> None:
    ahead = Caller(any_redis).look().time + 23 * 3600 * 10**6  # a token from before the server's clock stepped back
    any_redis.hset(FENCE, mapping={"token": str(ahead), "holder": "b"})
    assert int(Caller(any_redis).acquire().token) == ahead + 1


def test_tokens_increase_after_the_fence_was_deleted(any_redis: Redis) -> None:
    first = Caller(any_redis).acquire().token
    any_redis.delete(KEY, FENCE)
    assert int(Caller(any_redis).acquire().token) > int(first)


def test_deleting_the_fence_ends_the_term_of_the_holder(any_redis: Redis) -> None:
    first = Caller(any_redis).acquire().token
    any_redis.delete(FENCE)
    assert Caller(any_redis).renew(first).outcome == "superseded"
    again = Caller(any_redis).acquire()
    assert again.outcome == "acquired"
    assert int(again.token) > int(first)


# Sidecars and the in-process candidate of the deployment guide. The candidate acquires with SET key id NX EX 30.
# Before it renews with EXPIRE or releases with DEL, it compares the value of the key with its id.


def test_the_guides_candidate_cannot_acquire_a_lease_held_by_a_sidecar(any_redis: Redis) -> None:
    token = Caller(any_redis).acquire().token
    assert any_redis.set(KEY, "older", nx=True, ex=30) is None
    assert any_redis.get(KEY) == "a", "the guide's candidate finds another id, so it neither renews nor deletes"
    Caller(any_redis).release(token)
    assert any_redis.set(KEY, "older", nx=True, ex=30) is True


def test_a_sidecar_cannot_acquire_a_lease_held_by_the_guides_candidate(any_redis: Redis) -> None:
    ours = Caller(any_redis).acquire().token
    Caller(any_redis).release(ours)
    any_redis.set(KEY, "older", nx=True, ex=30)
    for answer in (Caller(any_redis).acquire(), Caller(any_redis).renew(ours), Caller(any_redis).release(ours)):
        assert (answer.outcome, answer.holder) == ("held", "older")
    any_redis.expire(KEY, 30)  # the heartbeat of the guide's candidate
    assert any_redis.get(KEY) == "older"
    any_redis.delete(KEY)
    taken = Caller(any_redis).acquire()
    assert taken.outcome == "acquired"
    assert int(taken.token) > int(ours)


def test_a_reply_to_a_follower_contains_the_numbers_of_watches_of_the_lease(any_redis: Redis) -> None:
    def counted() -> set[tuple[str, str]]:
        caller = Caller(any_redis)
        return {(answer.watchers, answer.direct) for answer in (caller.acquire(), caller.look(), caller.relay())}

    assert Caller(any_redis, id="b").acquire().watchers == "-", "a reply to the leader contains no number"
    assert counted() == {("0", "0")}
    with subscribed(any_redis, KEY, 2, 3):
        assert counted() == {("5", "2")}


RELEASES = [
    (0, 0, True, "released"),
    (8, 0, True, "released"),
    (8, 24, True, "released"),
    (8, 25, False, RELAY_NOTICE),
    (4, 30, True, "released"),
    (5, 30, False, RELAY_NOTICE),
    (MAX_DIRECT, 2, True, "released"),
    (MAX_DIRECT + 1, 2, True, RELAY_NOTICE),
]
"""Numbers of direct and relayed watches, whether a release notifies all of them, and its message to the direct ones."""


@pytest.mark.parametrize(
    ("direct", "relayed", "to_all", "notice"), RELEASES, ids=[f"{each[0]}-{each[1]}" for each in RELEASES]
)
def test_a_release_notifies_the_relayed_watches_itself_if_they_or_the_direct_watches_are_few(
    any_redis: Redis, direct: int, relayed: int, to_all: bool, notice: str
) -> None:
    token = Caller(any_redis).acquire().token
    with subscribed(any_redis, KEY, direct, relayed) as (directs, relays):
        assert Caller(any_redis).release(token).notice == "sent"
        assert [message(each) for each in directs] == [notice] * direct
        any_redis.publish(RELAYED, "after it")
        expected = ["vacant", "after it"] if to_all else ["after it"]
        assert [[message(each) for _ in expected] for each in relays] == [expected] * relayed
    model = RedisModel("run1", started=0)
    model.watches = direct, relayed
    assert (model.notifies_all, model.asks_for_relays) == (to_all, notice == RELAY_NOTICE)


def test_only_the_watches_of_candidates_that_relay_count_as_direct(any_redis: Redis) -> None:
    """Operators' commands and candidates of version 0.1.0 subscribe to the channel of releases only."""
    token = Caller(any_redis).acquire().token
    with subscribed(any_redis, KEY, 1, 30) as (_, relays), subscriber(any_redis, f"{KEY}:changed"):
        assert Caller(any_redis, id="b").look().direct == "1"
        Caller(any_redis).release(token)
        assert [message(each) for each in relays] == ["vacant"] * 30


def test_a_relay_has_no_deadline(any_redis: Redis) -> None:
    """A candidate that has made no call for long does not know the server's time, so it cannot state a deadline."""
    with subscribed(any_redis, KEY, 0, 1) as (_, relays):
        assert Caller(any_redis).relay(deadline=0).outcome == "vacant"
        assert message(relays[0]) == "vacant"


def test_a_relay_notifies_the_relayed_watches_only_while_the_lease_is_vacant_and_changes_nothing(
    any_redis: Redis,
) -> None:
    with subscribed(any_redis, KEY, 0, 2) as (_, relays):
        token = Caller(any_redis, id="b").acquire().token
        before = contents(any_redis)
        answer = Caller(any_redis).relay()
        assert (answer.outcome, answer.notice, contents(any_redis)) == ("held", "-", before)
        Caller(any_redis, id="b").release(token)
        assert [message(each) for each in relays] == ["vacant"] * 2, "these are the notices of the release"
        before = contents(any_redis)
        answer = Caller(any_redis).relay()
        assert (answer.outcome, answer.notice, contents(any_redis)) == ("vacant", "-", before)
        assert [message(each) for each in relays] == ["vacant"] * 2
        any_redis.set(KEY, "DISABLED")
        assert Caller(any_redis).relay().outcome == "disabled"
        any_redis.publish(RELAYED, "after it")
        assert [message(each) for each in relays] == ["after it"] * 2


@pytest.mark.parametrize("file", sorted(Path(scripts.__file__).parent.glob("*.lua")), ids=lambda file: file.stem)
def test_only_comments_are_removed_from_a_script_before_it_is_sent(file: Path) -> None:
    assert "--" not in scripts.script(file.stem)
    for line in file.read_text().splitlines():
        code, _, _ = line.partition("--")
        assert (code.count("'"), code.count('"')) == (code.count("'") // 2 * 2, 0), f"a string contains --: {line}"
        assert code.strip() in scripts.script(file.stem)
