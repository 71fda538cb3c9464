"""The history of a lease on real servers: what the scripts append, what is read, and the effect of a missing right."""

import asyncio
from collections.abc import Callable
from signal import SIGCONT, SIGSTOP

import pytest
from redis import Redis
from redis.exceptions import InvalidResponse

from ops.local.servers import RedisServer
from sidecar.history import Term
from sidecar.protocol import Kind, Outcome
from sidecar.redis.connection import RedisConnection
from sidecar.redis.history import READ_EVERY, Histories, HistoryUnavailable, read_history, terms_in
from sidecar.redis.store import history_of
from tests.sidecar.conftest import command
from tests.sidecar.redis.test_malformed import Hostile
from tests.support.redis_rights import LEAST, user, without
from tests.support.script_caller import FENCE, KEY, Caller
from tests.support.storing import at_port, storing

HISTORY = history_of(KEY)
LIMIT = 10.0


def connector(redis: Redis) -> Callable[[], RedisConnection]:
    return at_port(redis.connection_pool.connection_kwargs["port"])


def events(redis: Redis) -> list[dict[str, str]]:
    return [fields for _, fields in redis.xrange(HISTORY)]  # type: ignore[misc,union-attr]  # redis-py: untyped


async def terms(redis: Redis) -> list[Term]:
    return await read_history(connector(redis), KEY, LIMIT)


async def ends(redis: Redis) -> list[tuple[str, str, str | None]]:
    return [(term.holder, str(term.end), term.reason) for term in await terms(redis)]


def test_a_new_term_and_its_release_are_appended(any_redis: Redis) -> None:
    token = Caller(any_redis).acquire().token
    assert Caller(any_redis, reason="resigned").release(token).history == "kept"
    assert events(any_redis) == [
        {"event": "acquire", "token": token, "holder": "a", "reason": ""},
        {"event": "release", "token": token, "holder": "a", "reason": "resigned"},
    ]


def test_a_call_that_begins_or_ends_no_term_appends_nothing(any_redis: Redis) -> None:
    first = Caller(any_redis).acquire()
    answers = [
        Caller(any_redis, tenure="boot-1").acquire(),
        Caller(any_redis, tenure="boot-1").renew(first.token),
        Caller(any_redis, "b").acquire(),
        Caller(any_redis, "b").release(first.token),
        Caller(any_redis).look(),
        Caller(any_redis).acquire(deadline=0),
    ]
    assert [answer.outcome for answer in answers] == ["adopted", "renewed", "held", "held", "superseded", "late"]
    assert {answer.history for answer in answers} == {"-"}
    assert len(events(any_redis)) == 1


def test_the_history_of_a_key_with_a_hash_tag_is_in_the_same_slot() -> None:
    assert history_of("portfolio:x:leader") == "history:{portfolio:x:leader}"
    assert history_of("{portfolio}:x:leader") == "history:{portfolio}:x:leader"


async def test_the_scripts_write_the_stream_that_is_read(any_redis: Redis) -> None:
    tagged = "{portfolio}:tagged:leader"
    async with storing(connector(any_redis)) as store:
        assert isinstance(await store.call(Kind.ACQUIRE, key=tagged, limit=LIMIT), tuple)
        assert store.store.history == "kept"
    assert any_redis.xlen(history_of(tagged)) == 1
    [term] = await read_history(connector(any_redis), tagged, LIMIT)
    assert term.end == "holding"


def test_the_length_of_a_history_is_bounded(any_redis: Redis) -> None:
    for _ in range(700):
        caller = Caller(any_redis)
        caller.release(caller.acquire().token)
    assert 1000 <= any_redis.xlen(HISTORY) < 1200


async def test_the_terms_of_a_lease_are_reported_with_their_ends(any_redis: Redis) -> None:
    first = Caller(any_redis).acquire().token
    Caller(any_redis, reason="drain").release(first)
    Caller(any_redis, "b").acquire()
    any_redis.delete(KEY)
    third = Caller(any_redis, "c").acquire()
    assert await ends(any_redis) == [
        ("c", "holding", None),
        ("b", "not released", None),
        ("a", "released", "drain"),
    ]
    [newest, *_] = await terms(any_redis)
    assert abs(newest.acquired_at.timestamp() * 1e6 - third.time) < 2000, "the times are those of Redis"
    any_redis.set(KEY, "DISABLED", ex=60)
    assert (await ends(any_redis))[0] == ("c", "not released", None)


async def test_an_unconfirmed_acquire_is_not_recorded_as_a_term(any_redis: Redis) -> None:
    """With MIN_REPLICAS only the first renewal of a confirmed term appends the acquire to the history."""
    caller = Caller(any_redis, replicas=1)
    acquired = caller.acquire()
    assert (acquired.outcome, acquired.history) == ("acquired", "-")
    assert caller.acquire().outcome == "adopted"
    assert await terms(any_redis) == []
    assert [caller.renew(acquired.token).history for _ in range(3)] == ["kept", "-", "-"]
    assert await ends(any_redis) == [("a", "holding", None)]
    caller.release(acquired.token)
    unconfirmed = caller.acquire().token
    Caller(any_redis, replicas=1, reason="demand gone").release(unconfirmed)
    assert [str(term.token) for term in await terms(any_redis)] == [acquired.token]


async def test_an_account_without_rights_to_the_history_still_leads(
    any_redis: Redis,
) -> None:
    rights = without("~history:{portfolio:*", "+xadd", "+xrevrange")
    with user(any_redis, rights) as connect:
        async with storing(connect) as store:
            calls = (Kind.ACQUIRE, Kind.RENEW, Kind.ACQUIRE, Kind.RELEASE, Kind.ACQUIRE)
            outcomes = [await store.outcome(kind) for kind in calls]
            assert outcomes == ["acquired", "renewed", "adopted", "released", "acquired"]
            assert store.store.history == "refused"
        with pytest.raises(HistoryUnavailable, match=f"no permission for the key .*{HISTORY}.*docs/redis.md"):
            await read_history(connect, KEY, LIMIT)
    assert any_redis.exists(HISTORY) == 0


@pytest.mark.parametrize("right", ["~history:{portfolio:*", "+xadd"])
async def test_a_restored_right_to_the_history_is_used_at_the_next_term(any_redis: Redis, right: str) -> None:
    with user(any_redis, without(right)) as connect:
        async with storing(connect) as store:
            assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
            assert store.store.history == "refused"
            command(any_redis, "ACL", "SETUSER", "sidecar", *LEAST)
            assert await store.outcome(Kind.RELEASE) is Outcome.RELEASED
            assert store.store.history == "kept"


async def test_a_history_key_of_the_wrong_type_ends_no_term_and_is_reported(any_redis: Redis) -> None:
    any_redis.set(HISTORY, "x")
    acquired = Caller(any_redis).acquire()
    assert (acquired.outcome, acquired.history) == ("acquired", "refused")
    assert Caller(any_redis).release(acquired.token).outcome == "released"
    assert any_redis.get(HISTORY) == "x"
    with pytest.raises(HistoryUnavailable, match="WRONGTYPE"):
        await terms(any_redis)


async def test_the_history_is_readable_when_key_and_fence_have_the_wrong_type(any_redis: Redis) -> None:
    Caller(any_redis).acquire()
    any_redis.delete(KEY, FENCE)
    any_redis.lpush(KEY, "x")
    any_redis.set(FENCE, "x")
    assert await ends(any_redis) == [("a", "not released", None)]


async def test_any_entry_of_the_stream_is_shown_bounded_and_printable(any_redis: Redis) -> None:
    any_redis.xadd(HISTORY, {"anything": "x"})
    any_redis.xadd(HISTORY, {"event": "acquire", "token": "not a number", "holder": "a"})
    any_redis.xadd(HISTORY, {"event": "acquire", "token": "7", "holder": "\x1b[2J\n" + "x" * 1_000_000})
    any_redis.xadd(HISTORY, {"event": "release", "token": "7", "holder": "a", "reason": "y\u202e" * 100_000})
    [term] = await terms(any_redis)
    assert term.holder.isprintable()
    assert term.holder.startswith("\\x1b[2J\\n")
    assert len(term.holder) <= 300
    assert term.reason is not None
    assert term.reason.isprintable()
    assert len(term.reason) <= 64


async def test_the_history_is_read_at_most_once_a_second_for_any_number_of_readers(any_redis: Redis) -> None:
    now = 100.0
    histories = Histories(connector(any_redis), {"tracker": KEY}, limit=LIMIT, clock=lambda: now)
    Caller(any_redis).acquire()
    before = _evals(any_redis)
    answers = await asyncio.gather(*(histories.terms("tracker") for _ in range(50)))
    assert [len(each) for each in answers] == [1] * 50
    assert _evals(any_redis) == before + 1
    any_redis.delete(KEY)
    now += 0.9
    assert [term.end for term in await histories.terms("tracker")] == ["holding"]
    now += 0.2
    assert [term.end for term in await histories.terms("tracker")] == ["not released"]
    assert _evals(any_redis) == before + 2


async def test_a_reader_that_leaves_does_not_cancel_the_shared_read(any_redis: Redis) -> None:
    histories = Histories(connector(any_redis), {"tracker": KEY}, limit=LIMIT, clock=lambda: 100.0)
    before = _evals(any_redis)
    leaving, staying = (asyncio.create_task(histories.terms("tracker")) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == []
    assert _evals(any_redis) == before + 1


async def test_readers_that_come_during_a_read_share_its_result(any_redis_of_its_own: RedisServer) -> None:
    """The server is frozen. If each reader began a read of its own, the last reader would wait for many limits."""
    now = 100.0
    connect = at_port(any_redis_of_its_own.port)
    connections: list[RedisConnection] = []

    def counted() -> RedisConnection:
        connections.append(connect())
        return connections[-1]

    histories = Histories(counted, {"tracker": KEY}, limit=2 * READ_EVERY, clock=lambda: now)
    assert any_redis_of_its_own.process is not None
    any_redis_of_its_own.process.send_signal(SIGSTOP)
    readers = []
    for _ in range(8):
        readers.append(asyncio.create_task(histories.terms("tracker")))
        await asyncio.sleep(0)
        now += 1.5 * READ_EVERY
    errors = await asyncio.gather(*readers, return_exceptions=True)
    any_redis_of_its_own.process.send_signal(SIGCONT)
    assert [str(error) for error in errors] == ["no answer in time"] * 8
    assert len(connections) == 1


async def test_an_unreachable_redis_is_also_read_at_most_once_a_second(any_redis_of_its_own: RedisServer) -> None:
    histories = Histories(at_port(any_redis_of_its_own.port), {"tracker": KEY}, limit=LIMIT, clock=lambda: 100.0)
    any_redis_of_its_own.kill()
    errors = await asyncio.gather(*(histories.terms("tracker") for _ in range(5)), return_exceptions=True)
    assert len({str(error) for error in errors}) == 1
    assert all(isinstance(error, HistoryUnavailable) for error in errors)


def _evals(redis: Redis) -> int:
    calls = redis.info("commandstats").get("cmdstat_eval", {"calls": 0})
    return int(calls["calls"])


@pytest.mark.parametrize("answer", [[], ["a"], ["a", "1", "1-0", "acquire"]])
def test_a_history_of_another_shape_is_an_error(answer: list[str]) -> None:
    with pytest.raises(InvalidResponse, match="expected shape"):
        terms_in(answer)


async def test_an_answer_that_is_no_list_makes_the_history_unavailable() -> None:
    async with Hostile(b"+OK\r\n", greets=True).listening() as server:
        with pytest.raises(HistoryUnavailable, match="the history is not a list"):
            await read_history(at_port(server.port), KEY, 20.0)


def test_a_release_creates_no_second_history_while_the_slot_migrates(any_redis: Redis) -> None:
    """The release comes to the node that already has the key and the fence, but not yet the history."""
    caller = Caller(any_redis)
    token = caller.acquire().token
    any_redis.delete(history_of(KEY))
    assert caller.release(token).outcome == "released"
    version = tuple(int(part) for part in str(any_redis.info("server")["redis_version"]).split(".")[:2])
    assert bool(any_redis.exists(history_of(KEY))) == (version < (6, 2)), "Redis before 6.2 has no NOMKSTREAM"
