"""The primary that real sentinels name is found and followed; a single sentinel never decides."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from signal import SIGCONT, SIGSTOP

import pytest

from ops.local.servers import RedisServer, free_port
from runtime.clock import elapsed
from sidecar.protocol import Call, Kind, Outcome, Timings
from sidecar.redis.connection import Connector
from sidecar.redis.failures import Failure
from sidecar.redis.store import KeyedCall
from sidecar.redis.watch import WatchMode
from sidecar.server_kind import Sentinels
from tests.sidecar.redis.test_malformed import NONSENSE, Hostile
from tests.sidecar.redis.test_watch import watching
from tests.support.redis_cluster import send_command
from tests.support.redis_sentinels import MASTER, Group, redis_sentinels
from tests.support.storing import KEY, at_port, storing
from tests.support.waiting import eventually


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Group]:
    async with redis_sentinels(tmp_path) as group:
        yield group


def named_by(*nodes: tuple[str, int], master: str = MASTER, limit: float = 8.0) -> Connector:
    return at_port(1, Sentinels(nodes, master), limit=limit)


def by_all(group: Group) -> Connector:
    return named_by(*group.kind.nodes)


async def test_sentinels_lead_to_the_primary(group: Group) -> None:
    async with storing(by_all(group)) as store:
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
        assert send_command(group.servers[0], "EXISTS", "portfolio:background_services:leader") == 1


async def test_after_a_failover_the_new_primary_is_used_even_if_the_old_primary_still_serves(
    group: Group,
) -> None:
    connector = by_all(group)
    async with storing(connector) as store, watching(connector.companion) as watched:
        follows = asyncio.create_task(connector.follow(store.store.abort, 0.1))
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
        await watched.connected(WatchMode.TRACKING)
        await eventually(lambda: send_command(group.servers[0], "WAIT", "1", "100") == 1)
        group.fail_over()
        heir = group.servers[1]
        await eventually(lambda: not store.store.connected)
        assert group.role(group.servers[0]) == "master", (
            "the old primary continues to serve, so only the sentinels report the change"
        )
        assert await store.outcome(Kind.RENEW) is Outcome.RENEWED
        await watched.connected(WatchMode.TRACKING)
        send_command(heir, "DEL", "portfolio:background_services:leader")
        await watched.reports("tracker")
        follows.cancel()


async def test_a_restarted_old_primary_receives_no_call(group: Group) -> None:
    connector = by_all(group)
    old = group.servers[0]
    async with storing(connector) as store:
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
        await eventually(lambda: send_command(old, "WAIT", "1", "100") == 1)
        old.kill()

        async def renewed() -> bool:
            return getattr(await store.call(Kind.RENEW, limit=2.0), "outcome", None) is not None

        await eventually(renewed)
        old.start()
        assert group.role(old) == "master"
        await store.store.close()
        before = send_command(old, "INFO", "commandstats")
        assert "cmdstat_eval" not in str(before)
        await store.call(Kind.ACQUIRE, limit=8.0)
        assert "cmdstat_eval" not in str(send_command(old, "INFO", "commandstats"))


async def test_without_a_majority_of_sentinels_no_primary_is_used(group: Group) -> None:
    for sentinel in group.sentinels[1:]:
        sentinel.kill()
    async with storing(by_all(group)) as store:
        failure = await store.failure(Kind.ACQUIRE)
        assert failure.kind == "sentinel"
        assert "1 of 3 sentinels" in failure.text
        assert not failure.may_execute
        group.sentinels[1].start()
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED


async def test_the_connection_stays_open_while_the_sentinels_are_down(
    group: Group, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    connector = by_all(group)

    async def answer_again() -> bool:
        await connector._place.elsewhere()
        return "The sentinels answer again" in caplog.messages

    async with storing(connector, timings=Timings(ttl=60.0, call_limit=10.0)) as store:
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
        for sentinel in group.sentinels:
            sentinel.kill()
        assert not await connector._place.elsewhere()
        assert "The sentinels do not name the primary" in caplog.text
        assert await store.outcome(Kind.RENEW) is Outcome.RENEWED
        for sentinel in group.sentinels:
            sentinel.start()
        await eventually(answer_again)
        assert await store.outcome(Kind.RENEW) is Outcome.RENEWED


@pytest.mark.parametrize("min_replicas", [0, 1])
async def test_an_outage_of_the_sentinels_fails_only_acquires(group: Group, min_replicas: int) -> None:
    """All leases share the connection, so the attempts to acquire one lease must not end the term of another lease."""
    other = "portfolio:other:leader"

    async def acquired() -> bool:
        return getattr(await store.call(Kind.ACQUIRE, limit=10.0, key=other), "outcome", None) is Outcome.ACQUIRED

    timings = Timings(ttl=60.0, call_limit=10.0)
    async with storing(by_all(group), timings=timings, min_replicas=min_replicas) as store:
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
        for sentinel in group.sentinels:
            sentinel.kill()
        for alone in (False, True, False):
            now = elapsed()
            acquire = KeyedCall(other, Call(Kind.ACQUIRE, now, now + 10.0, None, "boot-1"))
            renew = KeyedCall(KEY, Call(Kind.RENEW, now, now + 10.0, store.token, "boot-0"))
            failure, *renewals = await store.store.execute([acquire] if alone else [acquire, renew])
            assert isinstance(failure, Failure)
            assert (failure.kind, failure.may_execute) == ("sentinel", False)
            assert [getattr(each, "outcome", each) for each in renewals] == ([] if alone else [Outcome.RENEWED])
            assert store.store.connected
        assert send_command(group.servers[0], "EXISTS", other) == 0
        for sentinel in group.sentinels:
            sentinel.start()
        await eventually(acquired)


async def test_a_sentinel_with_an_older_epoch_is_outvoted(group: Group) -> None:
    """The last sentinel is frozen during the failover, so it names the old primary with an older epoch."""
    left_behind = group.sentinels[2]
    assert left_behind.process is not None
    left_behind.process.send_signal(SIGSTOP)
    group.fail_over()
    await eventually(lambda: all(group.primary(each) is group.servers[1] for each in (0, 1)))
    group.sentinels[1].kill()
    order_frozen = [("127.0.0.1", group.sentinels[each].port) for each in (2, 0)]
    connector = named_by(*order_frozen, ("127.0.0.1", free_port()))
    place = connector._place
    finding = asyncio.create_task(place.find())
    left_behind.process.send_signal(SIGCONT)
    assert await finding == ("127.0.0.1", group.servers[1].port)


async def test_a_silent_sentinel_delays_no_connection(group: Group) -> None:
    """One sentinel is frozen, so it answers nothing. The two other sentinels are a majority."""
    silent = group.sentinels[1]
    assert silent.process is not None
    silent.process.send_signal(SIGSTOP)
    async with storing(named_by(*group.kind.nodes, limit=120.0)) as store, asyncio.timeout(40):
        assert getattr(await store.call(Kind.ACQUIRE, limit=120.0), "outcome", None) is Outcome.ACQUIRED


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("not a sentinel", "it is not a sentinel"),
        ("another name", "REDIS_SENTINEL_MASTER"),
        ("nothing", "connecting to 127.0.0.1"),
    ],
)
async def test_the_failure_of_the_sentinels_is_reported_with_its_cause(
    group: Group, redis_of_its_own: RedisServer, what: str, says: str
) -> None:
    nodes = {"not a sentinel": ("127.0.0.1", redis_of_its_own.port), "nothing": ("127.0.0.1", free_port())}
    node = nodes.get(what, group.kind.nodes[0])
    async with storing(named_by(node, master="other" if what == "another name" else MASTER)) as store:
        failure = await store.failure(Kind.ACQUIRE)
        assert failure.kind == "sentinel"
        assert says in failure.text, failure.text


async def test_a_server_that_reports_another_role_than_primary_receives_no_call(group: Group) -> None:
    """An operator, and not the sentinels, made the primary a replica."""
    send_command(group.servers[0], "REPLICAOF", "127.0.0.1", str(group.servers[1].port))
    async with storing(by_all(group)) as store:
        failure = await store.failure(Kind.ACQUIRE)
        assert (failure.kind, failure.may_execute) == ("sentinel", False)
        assert "not a primary" in failure.text


async def test_the_password_of_the_sentinels_is_sent_only_to_sentinels(group: Group) -> None:
    for sentinel in group.sentinels:
        send_command(sentinel, "CONFIG", "SET", "requirepass", "correct-horse")
        send_command(sentinel, "ACL", "SETUSER", "default", ">correct-horse", "on")
    kind = group.kind
    wrong = at_port(1, Sentinels(kind.nodes, MASTER, None, "wrong"), limit=8.0)
    async with storing(wrong) as store:
        failure = await store.failure(Kind.ACQUIRE)
        assert failure.kind == "sentinel"
        assert "wrong" not in failure.text.lower().replace("wrongpass", "")
        assert "(REDIS_SENTINEL_PASSWORD)" in failure.text
    async with storing(by_all(group)) as store:
        assert "(REDIS_SENTINEL_PASSWORD)" in (await store.failure(Kind.ACQUIRE)).text
    async with storing(at_port(1, Sentinels(kind.nodes, MASTER, None, "correct-horse"), limit=8.0)) as store:
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED


async def test_no_lease_is_acquired_at_an_old_primary_over_an_open_connection(group: Group) -> None:
    """Another task may already hold the lease at the new primary, so the old primary's data must not decide."""
    old, heir = group.servers
    async with storing(by_all(group)) as store:
        assert await store.outcome(Kind.LOOK) is Outcome.VACANT
        group.fail_over()
        await eventually(lambda: sum(group.primary(each) is heir for each in range(3)) >= 2)
        assert group.role(old) == "master"
        assert store.store.connected
        now = elapsed()
        assert store.store.send([KeyedCall(KEY, Call(Kind.ACQUIRE, now, now + 5))]) is None
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
        assert send_command(heir, "EXISTS", "portfolio:background_services:leader") == 1
        assert "cmdstat_set:" not in str(send_command(old, "INFO", "commandstats"))


@pytest.mark.parametrize("name", ["http", "no length", "nothing", "no list", "a list of lists", "MOVED to nowhere"])
async def test_a_malformed_answer_of_a_sentinel_is_a_failure_of_the_sentinels(name: str) -> None:
    async with (
        Hostile(NONSENSE[name] * 2).listening() as server,
        storing(named_by(("127.0.0.1", server.port))) as store,
    ):
        failure = await store.failure(Kind.ACQUIRE)
        assert failure.kind == "sentinel"
        assert "0 of 1 sentinels name the same primary" in failure.text
