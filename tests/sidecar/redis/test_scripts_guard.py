"""The failover guard: for one ttl, no new term starts on a server that may have lost a write about the last term."""

import re
import time
from pathlib import Path

import pytest
from redis import Redis

from ops.local.servers import RedisServer
from tests.faults.replication import in_step, promote, replicating
from tests.sidecar.conftest import client_of, command
from tests.support.script_caller import FENCE, KEY, Answer, Caller
from tests.support.waiting import eventually

QUICK = 1_000
"""A ttl that a test can wait for, in ms."""


def changed_server(redis: Redis) -> None:
    """Record another server as the last one that acted on the lease."""
    redis.hset(FENCE, mapping={"run_id": "f" * 40, "replid": "e" * 40})


def known_server(redis: Redis, holder: str = "b", *, held: bool = True) -> str:
    """Start a term at this server, which is recorded as the last one that acted on the lease; return the term's token.

    Unless `held`, the term is released.
    """
    info = redis.info()
    redis.hset(FENCE, mapping={"run_id": info["run_id"], "replid": info["master_replid"]})
    caller = Caller(redis, holder, guarding=True)
    token = caller.acquire().token
    if not held:
        caller.release(token)
    return token


def test_the_server_that_acted_last_has_no_guard(any_redis: Redis) -> None:
    known_server(any_redis, held=False)
    answer = Caller(any_redis, guarding=True).acquire()
    assert (answer.outcome, answer.guard, answer.wait) == ("acquired", "on", 0)


def test_after_a_server_change_no_new_term_starts_for_one_ttl(any_redis: Redis) -> None:
    known_server(any_redis, held=False)
    changed_server(any_redis)
    answer = Caller(any_redis, guarding=True).acquire()
    assert (answer.outcome, answer.wait) == ("guarded", 30_000)
    assert any_redis.exists(KEY) == 0


@pytest.mark.parametrize("sees", ["acquire", "look", "renew"])
def test_the_guard_starts_when_the_first_candidate_sees_the_change(any_redis: Redis, sees: str) -> None:
    known_server(any_redis, held=True)
    changed_server(any_redis)
    other = Caller(any_redis, "c", guarding=True)
    answer = other.acquire() if sees == "acquire" else other.look() if sees == "look" else other.renew("1")
    assert answer.outcome == "held"
    seen_at = int(any_redis.hget(FENCE, "changed_at") or 0)
    assert seen_at > 0
    any_redis.hset(FENCE, "changed_at", str(seen_at - 10_000_000))
    any_redis.delete(KEY)
    answer = Caller(any_redis, guarding=True).acquire()
    assert answer.outcome == "guarded"
    assert 5_000 < answer.wait <= 20_000


@pytest.mark.parametrize("renewed", [False, True])
async def test_after_the_first_replica_of_a_primary_connects_the_guard_waits_unless_the_leader_has_renewed(
    tmp_path: Path, renewed: bool
) -> None:
    """When the first replica connects, the primary gets a new replication id, as a promoted replica does."""
    with replicating(tmp_path / "primary") as primary, client_of(primary) as redis:
        token = known_server(redis, "a")
        with replicating(tmp_path / "replica", of=primary.port) as replica:
            await eventually(lambda: in_step(primary, replica))
            leader = Caller(redis, guarding=True)
            if renewed:
                assert leader.renew(token).outcome == "renewed"
            assert leader.release(token).outcome == "released"
            assert Caller(redis, "b", guarding=True).acquire().outcome == ("acquired" if renewed else "guarded")


def test_the_guard_ends_after_one_ttl(any_redis: Redis) -> None:
    known_server(any_redis, held=False)
    changed_server(any_redis)
    caller = Caller(any_redis, ttl=300, guarding=True)
    began = time.monotonic()
    while (answer := caller.acquire()).outcome == "guarded":
        assert time.monotonic() - began < 30
        time.sleep(max(answer.wait, 1) / 1000)
    assert answer.outcome == "acquired"
    assert time.monotonic() - began >= 0.3
    assert any_redis.hget(FENCE, "changed") is None
    caller.release(answer.token)
    assert Caller(any_redis, "b", guarding=True).acquire().outcome == "acquired", "the server is known now"


def test_a_server_change_recorded_in_the_future_is_dated_again(any_redis: Redis) -> None:
    """The old server's clock was ahead. If the recorded time were kept, the wait would be far too long."""
    known_server(any_redis, held=False)
    changed_server(any_redis)
    caller = Caller(any_redis, guarding=True)
    caller.acquire()
    any_redis.hset(FENCE, "changed_at", str(caller.look().time + 10**12))
    assert caller.acquire().wait == 30_000


def test_a_second_server_change_restarts_the_guard(any_redis: Redis) -> None:
    known_server(any_redis, held=False)
    changed_server(any_redis)
    any_redis.hset(FENCE, mapping={"changed": "d" * 80, "changed_at": "1"})
    assert Caller(any_redis, guarding=True).acquire().wait == 30_000


def test_the_guard_does_not_delay_the_renewal_of_a_current_term(any_redis: Redis) -> None:
    token = known_server(any_redis, "a")
    changed_server(any_redis)
    caller = Caller(any_redis, guarding=True)
    assert caller.renew(token).outcome == "renewed"
    assert any_redis.hget(FENCE, "run_id") == any_redis.info()["run_id"]
    assert caller.acquire().outcome == "adopted", "the holder's renewal recorded this server"


def test_the_guard_also_delays_an_acquire_by_the_holder_of_the_key(any_redis: Redis) -> None:
    """The lost writes may be the release of that term and the acquire of another candidate."""
    known_server(any_redis, "a")
    changed_server(any_redis)
    answer = Caller(any_redis, guarding=True).acquire()
    assert (answer.outcome, answer.holder) == ("guarded", "a")


def test_an_empty_young_server_is_guarded_until_it_is_one_ttl_old(any_redis_of_its_own: RedisServer) -> None:
    with client_of(any_redis_of_its_own) as redis:
        answer = Caller(redis, guarding=True).acquire()
        assert answer.outcome == "guarded"
        assert 5_000 < answer.wait <= 31_000
        began = time.monotonic()
        while Caller(redis, ttl=300, guarding=True).acquire().outcome == "guarded":
            assert time.monotonic() - began < 30
            time.sleep(0.05)
        assert redis.info("server")["uptime_in_seconds"] >= 2, "the uptime in whole seconds may be a second too long"


@pytest.mark.parametrize("promoted", [False, True])
async def test_after_the_loss_of_the_fence_the_leader_waits_for_one_ttl_on_a_server_that_was_promoted(
    tmp_path: Path, promoted: bool
) -> None:
    """A server that the fence does not name may lack writes, unless it is older than one ttl and was never promoted."""
    with (
        replicating(tmp_path / "primary") as primary,
        replicating(tmp_path / "replica", of=primary.port) as replica,
        client_of(replica if promoted else primary) as redis,
    ):
        await eventually(lambda: in_step(primary, replica))
        if promoted:
            promote(replica)
        token = known_server(redis, "a")
        await eventually(lambda: redis.info("server")["uptime_in_seconds"] > QUICK / 1000 + 1)
        redis.delete(FENCE)
        leader = Caller(redis, ttl=QUICK, guarding=True)
        lost = leader.renew(token)
        assert lost.outcome == "superseded"
        if promoted:
            answer = await eventually(lambda: acquired(leader))
            assert answer.time - lost.time >= QUICK * 1000
        else:
            answer = leader.acquire()
            assert answer.outcome == "acquired"
        assert int(answer.token) > int(token)


def acquired(caller: Caller) -> Answer | None:
    """The answer to an acquire; None if the acquire did not succeed."""
    answer = caller.acquire()
    return answer if answer.outcome == "acquired" else None


def test_with_the_guard_off_an_acquire_needs_no_server_facts_and_no_wait(any_redis: Redis) -> None:
    changed_server(any_redis)
    answer = Caller(any_redis, guarding=False).acquire()
    assert (answer.outcome, answer.guard) == ("acquired", "off")


def test_a_promoted_replica_counts_as_a_server_change_even_if_its_process_is_old(any_redis: Redis) -> None:
    """The process is the same, but it was a replica in between and may lack writes from that time."""
    known_server(any_redis, held=False)
    assert Caller(any_redis, guarding=True).acquire().outcome == "acquired"
    any_redis.delete(KEY)
    command(any_redis, "REPLICAOF", "127.0.0.1", "1")
    command(any_redis, "REPLICAOF", "NO", "ONE")
    assert Caller(any_redis, guarding=True).acquire().outcome == "guarded"


def test_the_guard_is_longer_if_an_old_primary_may_still_serve(any_redis: Redis) -> None:
    known_server(any_redis, held=False)
    changed_server(any_redis)
    assert Caller(any_redis, guarding=True, late=20_000).acquire().wait == 50_000


def test_servers_that_alternate_behind_one_address_do_not_postpone_the_end_of_the_guard(any_redis: Redis) -> None:
    """All of these servers are recorded. The record of the last server must not remove the other records."""
    known_server(any_redis, held=False)
    changed_server(any_redis)
    caller = Caller(any_redis, guarding=True)
    assert caller.acquire().wait == 30_000
    seen_at = int(any_redis.hget(FENCE, "changed_at") or 0) - 10_000_000
    any_redis.hset(FENCE, "changed_at", str(seen_at))
    for turn in range(5):
        record_another_server(any_redis, turn, seen_at)
        assert 10_000 < caller.acquire().wait <= 20_000, turn


def test_the_record_of_alternating_servers_is_bounded_and_complete(any_redis: Redis) -> None:
    known_server(any_redis, held=False)
    changed_server(any_redis)
    for turn in range(30):
        any_redis.hset(FENCE, mapping={"changed": f"{turn:080}", "changed_at": "17"})
        Caller(any_redis, guarding=True).acquire()
    notes = str(any_redis.hget(FENCE, "others"))
    assert 700 < len(notes) <= 900
    assert all(re.fullmatch(r"[0-9]{80}=17", note) for note in notes.split(" ")), notes


def record_another_server(redis: Redis, number: int, seen_at: int) -> None:
    """Write the record that the script writes at another server behind the same address."""
    changed, at, others = redis.hmget(FENCE, "changed", "changed_at", "others")
    notes = " ".join(str(each) for each in (f"{changed!s}={at!s}" if changed else None, others) if each)
    if notes:
        redis.hset(FENCE, "others", notes)
    redis.hset(FENCE, "changed", f"{number:080}")
    redis.hset(FENCE, "changed_at", str(seen_at))
