"""The election loop with a real Redis: requests, notices and lost connections, also during a call."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import pytest
from redis import Redis

from ops.local.servers import RedisServer
from runtime.clock import elapsed
from sidecar.election.candidate import Candidate
from sidecar.protocol import ECHO_DELAY, Call, Kind, Outcome, Reply, State, Timings, View
from sidecar.redis.failures import Failure
from sidecar.redis.reconnects import FIRST
from sidecar.redis.store import KeyedCall, RedisStore, Sent, fence_of
from sidecar.redis.watch import WatchMode
from sidecar.telemetry import Telemetry
from tests.simulation.virtual_time import VirtualLoop
from tests.support.one_lease import BELIEVED, T, fresh_lease, leading
from tests.support.proxy import Proxy
from tests.support.served_control import KEYS, Served, served
from tests.support.storing import at_port
from tests.support.waiting import eventually

SLOW = Timings(ttl=120.0, heartbeat=40.0, grant_ttl=30.0, call_limit=20.0)
"""Timings under which no timer fires within seconds."""
QUICK = Timings(ttl=1.2, heartbeat=0.4, grant_ttl=0.2, call_limit=0.2)
PATIENT = Timings(ttl=30.0, heartbeat=1.0, grant_ttl=0.2, call_limit=5.0)
"""Timings under which a drain has time for slow calls. No key expires in the test, so a missing key was deleted."""

FORGETFUL = Timings(ttl=60.0, heartbeat=6.0, grant_ttl=0.2, call_limit=2.0)
"""Timings under which demand ends long before the key expires."""

HOURLY = Timings(ttl=3600.0, heartbeat=1200.0, grant_ttl=30.0, call_limit=1.0)
"""Timings with a long lease and a short limit of a call."""
RESTLESS = Timings(ttl=9.0, heartbeat=0.06, grant_ttl=4.0, call_limit=3.0)
"""Timings with a heartbeat below half of the shortest pause between two renewals, 0.3 s."""


@pytest.fixture
async def way(redis_server: RedisServer) -> AsyncIterator[Proxy]:
    """The proxy for the calls; the watch does not use it."""
    async with Proxy(redis_server.port) as way:
        yield way


@asynccontextmanager
async def connected(redis: RedisServer, way: Proxy, timings: Timings) -> AsyncIterator[Served]:
    """A sidecar that is connected and whose watch tracks changes. No call is under way."""
    async with served(redis, timings=timings, calls=way.port) as sidecar:
        await eventually(lambda: sidecar.watch.mode is WatchMode.TRACKING and sidecar.candidate._store.connected)
        yield sidecar


def outcomes_of(sidecar: Served, monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    """The outcomes of the calls that end from now on; the list grows with each reply."""
    outcomes: list[Outcome] = []
    lease = sidecar.candidate._leases["tracker"]
    replied = lease.replied

    def observed(call: Call, reply: Reply, now: float) -> None:
        outcomes.append(reply.outcome)
        replied(call, reply, now)

    monkeypatch.setattr(lease, "replied", observed)
    return outcomes


def scripts_run(redis: Redis) -> int:
    return int(redis.info("commandstats").get("cmdstat_eval", {}).get("calls", 0))


async def test_a_request_wakes_the_sleeping_loop(redis_server: RedisServer, redis: Redis, way: Proxy) -> None:
    async with connected(redis_server, way, SLOW) as sidecar:
        await eventually(lambda: sidecar.candidate._asleep_until > elapsed() + SLOW.heartbeat / 2)
        async with asyncio.timeout(SLOW.heartbeat / 2):
            assert (await sidecar.get("/is-leader/tracker"))["is_leader"] is True


async def test_a_notice_during_a_call_causes_a_look_after_it(
    redis_server: RedisServer, redis: Redis, way: Proxy
) -> None:
    redis.set(KEYS["tracker"], "b", ex=100)
    async with connected(redis_server, way, SLOW) as sidecar:
        before = scripts_run(redis)
        way.replies.hold()
        asking = asyncio.create_task(sidecar.lead())
        await eventually(lambda: scripts_run(redis) > before)  # the proxy holds the reply, which names b as the holder
        noticed = asyncio.Event()
        hear = sidecar.watch._changed

        def on_change(name: str) -> None:
            hear(name)
            noticed.set()

        sidecar.watch._changed = on_change
        redis.delete(KEYS["tracker"])
        async with asyncio.timeout(20):
            await noticed.wait()
        way.flow()
        assert (await asking)["is_leader"] is True


async def test_a_resign_while_an_acquire_is_under_way_leaves_the_lease_to_the_others(
    redis_server: RedisServer, redis: Redis, way: Proxy
) -> None:
    redis.set(KEYS["tracker"], "b", ex=100)
    async with connected(redis_server, way, SLOW) as sidecar:
        await sidecar.get("/is-leader/tracker")
        await sidecar.resign()  # ends every grant that a previous process may have given
        way.replies.hold()
        redis.delete(KEYS["tracker"])
        await sidecar.get("/is-leader/tracker")
        await eventually(lambda: redis.get(KEYS["tracker"]) == "a")
        await sidecar.resign()
        way.flow()
        await eventually(lambda: redis.get(KEYS["tracker"]) is None)
        assert await sidecar.state() == "waiting"


async def test_an_acquire_with_a_lost_reply_is_released_when_demand_has_ended(
    redis_server: RedisServer, redis: Redis, way: Proxy
) -> None:
    async with connected(redis_server, way, FORGETFUL) as sidecar:
        way.replies.lose()
        await sidecar.get("/is-leader/tracker")
        await eventually(lambda: sidecar.candidate._trouble["tracker"] is not None)
        assert redis.get(KEYS["tracker"]) == "a"
        way.flow()
        await eventually(lambda: redis.get(KEYS["tracker"]) is None, within=FORGETFUL.ttl / 2)


async def test_an_acquire_without_a_reply_is_repeated_soon_even_if_the_lease_is_long(
    redis_server: RedisServer, way: Proxy
) -> None:
    async with connected(redis_server, way, HOURLY) as sidecar:
        way.requests.lose()
        leading = asyncio.create_task(sidecar.lead())
        await eventually(lambda: sidecar.candidate._trouble["tracker"] is not None)
        way.flow()
        assert (await leading)["is_leader"]


async def test_a_term_starts_before_its_call_is_sent(redis_server: RedisServer, redis: Redis, way: Proxy) -> None:
    async with connected(redis_server, way, SLOW) as sidecar:
        before = scripts_run(redis)
        way.replies.hold()
        leading = asyncio.create_task(sidecar.lead())
        await eventually(lambda: scripts_run(redis) > before)
        executed = elapsed()
        way.flow()
        await leading
        now = elapsed()
        assert now + sidecar.candidate._leases["tracker"].remaining(now) < executed + SLOW.ttl - SLOW.margin


async def test_renewals_have_a_known_server_time_however_short_the_heartbeat_is(
    redis_server: RedisServer, way: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(redis_server, way, RESTLESS) as sidecar:
        await sidecar.lead()
        outcomes = outcomes_of(sidecar, monkeypatch)
        await eventually(lambda: outcomes.count(Outcome.RENEWED) >= 6)
        assert set(outcomes) == {Outcome.RENEWED}


async def test_without_replies_a_term_ends_at_its_deadline(redis_server: RedisServer, way: Proxy) -> None:
    async with connected(redis_server, way, QUICK) as sidecar:
        version = (await sidecar.lead())["version"]
        way.replies.hold()
        until = elapsed() + QUICK.ttl - QUICK.margin
        sent_at = elapsed()
        while (answer := await sidecar.get("/is-leader/tracker", wait=1, version=version))["is_leader"]:
            assert sent_at + answer["expires_in"] <= until
            sent_at = elapsed()


async def test_each_reply_of_a_round_trip_reaches_its_lease(
    redis_server: RedisServer, redis: Redis, way: Proxy
) -> None:
    redis.set(KEYS["tracker"], "b", ex=100)
    async with connected(redis_server, way, SLOW) as sidecar:
        leases = (await sidecar.get("/is-leader"))["leases"]
        assert {name: lease["holder"] for name, lease in leases.items()} == {"tracker": "b", "scheduler": "a"}


async def test_a_drain_ends_when_every_lease_is_released(redis_server: RedisServer, redis: Redis, way: Proxy) -> None:
    async with connected(redis_server, way, PATIENT) as sidecar:
        await sidecar.lead()
        sidecar.candidate.drain()
        async with asyncio.timeout(30):
            await sidecar.election
        assert redis.get(KEYS["tracker"]) is None


async def failures(sidecar: Served) -> list[str]:
    """The metric samples of failed calls and connections."""
    async with sidecar.session.get(f"{sidecar.metrics_url}/metrics") as response:
        return [line for line in (await response.text()).splitlines() if line.startswith("sidecar_redis_errors_total{")]


async def test_a_connection_that_the_server_closes_is_replaced_before_a_call_needs_it(
    redis_server: RedisServer, redis: Redis, way: Proxy
) -> None:
    async with connected(redis_server, way, SLOW) as sidecar:
        await sidecar.lead()
        lease = sidecar.candidate._leases["tracker"]
        for _ in range(3):
            # The watch reports the leader's own change of the key, and the report causes a call. Wait until this call
            # has ended, because it would fail with its connection.
            await eventually(lambda: lease._in_flight is None and lease._due > elapsed() + 1)
            way.accepted = 0
            await way.cut()
            await eventually(lambda: way.accepted and sidecar.candidate._store.connected)
            assert way.accepted == 1
        assert sidecar.candidate._trouble["tracker"] is None
        assert await sidecar.state() == "leading"
        assert await failures(sidecar) == []


async def test_a_follower_whose_connection_was_closed_acquires_the_lease_at_once(
    redis_server: RedisServer, redis: Redis, way: Proxy
) -> None:
    redis.set(KEYS["tracker"], "b", ex=100)
    async with connected(redis_server, way, SLOW) as sidecar:
        version = (await sidecar.get("/is-leader/tracker"))["version"]
        waiting = asyncio.create_task(sidecar.get("/is-leader/tracker", wait=20, version=version))
        await way.cut()
        redis.delete(KEYS["tracker"])
        assert (await waiting)["is_leader"] is True
        assert await failures(sidecar) == []


async def test_while_redis_is_unreachable_connections_are_tried_after_doubling_pauses(
    redis_server: RedisServer, redis: Redis, way: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(redis_server, way, SLOW) as sidecar:
        pauses: list[float] = []
        pause = sidecar.candidate._reconnects.next

        def noted() -> float:
            pauses.append(pause())
            return pauses[-1]

        monkeypatch.setattr(sidecar.candidate._reconnects, "next", noted)
        await way.refuse()
        await eventually(lambda: len(pauses) >= 5)
        for number, each in enumerate(pauses):
            assert FIRST * 2**number * 0.5 <= each <= FIRST * 2**number * 1.5, pauses
        await way.accept()
        await eventually(lambda: sidecar.candidate._store.connected)
        await sidecar.lead()
        del pauses[:]
        await way.cut()
        await eventually(lambda: pauses)
        assert pauses[0] <= FIRST * 1.5, "the pauses start over after a connection that carried a call"


async def test_a_look_that_finds_the_sidecars_own_id_reports_no_duplicate_instance_id(
    redis_server: RedisServer, redis: Redis, way: Proxy
) -> None:
    """After a restart within a term, the key may still contain this id from an acquire of the previous process."""
    async with connected(redis_server, way, FORGETFUL) as sidecar:
        await sidecar.lead()
        await sidecar.resign()
        await eventually(lambda: redis.get(KEYS["tracker"]) is None)
        redis.set(KEYS["tracker"], "a", ex=100)
        before = scripts_run(redis)
        sidecar.candidate.asked("tracker")  # for a second after its resign, the candidate looks and does not acquire
        await eventually(lambda: scripts_run(redis) > before)
        await eventually(lambda: sidecar.candidate._leases["tracker"]._in_flight is None)
        assert sidecar.candidate._trouble["tracker"] is None


async def test_a_term_taken_by_a_process_with_the_same_id_reports_the_instance_id(
    redis_server: RedisServer, redis: Redis, way: Proxy
) -> None:
    async with connected(redis_server, way, FORGETFUL) as sidecar:
        await sidecar.lead()
        redis.hset(fence_of(KEYS["tracker"]), "tenure", "other-1")
        sidecar.candidate.noticed("tracker")
        await eventually(lambda: "INSTANCE_ID" in (sidecar.candidate._trouble["tracker"] or ""))


async def test_a_new_connection_does_not_clear_the_trouble_of_a_call(
    redis_server: RedisServer, redis: Redis, way: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server whose memory is full accepts connections, and refuses the scripts."""
    async with connected(redis_server, way, SLOW) as sidecar:
        troubles: list[str | None] = []
        connect = sidecar.candidate._open

        async def observed() -> None:
            await connect()
            troubles.append(sidecar.candidate._trouble["tracker"])

        monkeypatch.setattr(sidecar.candidate, "_open", observed)
        redis.config_set("maxmemory", "1")
        try:
            await sidecar.get("/is-leader/tracker")
            await eventually(lambda: len(troubles) >= 2)
        finally:
            redis.config_set("maxmemory", "0")
        assert all("oom" in str(trouble) for trouble in troubles), troubles
        await sidecar.lead()
        await eventually(lambda: sidecar.candidate._trouble["tracker"] is None)


async def test_after_the_fence_is_deleted_the_next_term_begins_at_once_and_no_duplicate_instance_id_is_reported(
    redis_server: RedisServer,
    redis: Redis,
    way: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with connected(redis_server, way, SLOW) as sidecar:
        token = (await sidecar.lead())["token"]
        outcomes = outcomes_of(sidecar, monkeypatch)
        redis.delete(fence_of(KEYS["tracker"]))
        sidecar.candidate.noticed("tracker")
        await eventually(lambda: len(outcomes) >= 2)
        assert outcomes[:2] == [Outcome.SUPERSEDED, Outcome.ACQUIRED]
        assert (await sidecar.lead())["token"] > token
        assert "INSTANCE_ID" not in caplog.text


def sent_by(sidecar: Served) -> list[str]:
    """The kinds of the calls that the sidecar sends from now on; the list grows with each call."""
    kinds: list[str] = []
    store = sidecar.candidate._store
    send = store.send

    def observed(calls: Sequence[KeyedCall]) -> Sent | None:
        sent = send(calls)
        kinds.extend(keyed.call.kind for keyed in calls if sent is not None)
        return sent

    store.send = observed  # type: ignore[method-assign]
    return kinds


async def asleep(sidecar: Served) -> None:
    await eventually(lambda: sidecar.candidate._asleep_until > elapsed() + SLOW.heartbeat / 2)


async def test_a_resign_sends_the_release_before_it_returns(
    redis_server: RedisServer, redis: Redis, way: Proxy
) -> None:
    async with connected(redis_server, way, SLOW) as sidecar:
        await sidecar.lead()
        await asleep(sidecar)
        sent = sent_by(sidecar)
        assert sidecar.candidate.resigned("tracker", None, "")
        assert sent == [Kind.RELEASE]
        await eventually(lambda: redis.get(KEYS["tracker"]) is None)


async def test_the_release_notice_of_a_resign_is_always_published_after_the_release(
    redis_server: RedisServer, redis: Redis, way: Proxy
) -> None:
    async with connected(redis_server, way, SLOW) as sidecar:
        candidate = sidecar.candidate
        for _ in range(5):  # the timer fires slightly early by the clock `elapsed`, but only in some rounds
            await sidecar.lead()
            version = candidate.version(["tracker"])
            held = asyncio.create_task(candidate.hold(["tracker"], version, 20, "", None))
            await asyncio.sleep(0)
            changed = candidate._changed
            assert candidate.resigned("tracker", None, "")
            candidate._publish()
            assert not changed.is_set()
            async with asyncio.timeout(10):
                await held
            candidate._leases["tracker"]._rest.until = elapsed()


async def test_a_notice_sends_the_acquire_before_it_returns(
    redis_server: RedisServer, redis: Redis, way: Proxy
) -> None:
    redis.set(KEYS["tracker"], "b", ex=100)
    async with connected(redis_server, way, SLOW) as sidecar:
        asking = asyncio.create_task(sidecar.lead())
        await eventually(lambda: sidecar.candidate.status("tracker").holder == "b")
        await asleep(sidecar)
        sent = sent_by(sidecar)
        sidecar.candidate.noticed("tracker")
        assert sent == [Kind.ACQUIRE]
        sidecar.candidate.noticed("tracker")
        assert sent == [Kind.ACQUIRE], "one round trip at a time"
        redis.delete(KEYS["tracker"])
        async with asyncio.timeout(SLOW.heartbeat / 2):
            assert (await asking)["is_leader"]


async def test_a_notice_while_the_loop_connects_sends_nothing(
    redis_server: RedisServer, redis: Redis, way: Proxy
) -> None:
    """The old connection may still be open, but the loop no longer waits for its replies."""
    async with connected(redis_server, way, SLOW) as sidecar:
        await sidecar.get("/is-leader/tracker")
        await asleep(sidecar)
        sidecar.candidate._store._replace_at = elapsed()
        way.replies.hold()
        sidecar.candidate._wake.set()
        await eventually(lambda: sidecar.candidate._asleep_until < 0)
        sent = sent_by(sidecar)
        sidecar.candidate.noticed("tracker")
        await asyncio.sleep(ECHO_DELAY * 2)
        sidecar.candidate.noticed("tracker")
        assert sent == []
        way.replies.flow()


async def test_a_connection_is_not_replaced_while_a_call_over_it_is_under_way(
    redis_server: RedisServer, redis: Redis, way: Proxy
) -> None:
    redis.set(KEYS["tracker"], "b", ex=100)
    async with connected(redis_server, way, SLOW) as sidecar:
        assert (await sidecar.get("/is-leader/tracker"))["holder"] == "b"
        await asleep(sidecar)
        store, before = sidecar.candidate._store, await failures(sidecar)
        redis.set(KEYS["tracker"], "c", ex=100)
        store._replace_at = elapsed()
        former = store._connection
        sidecar.candidate.noticed("tracker")
        await eventually(lambda: sidecar.candidate.status("tracker").holder == "c")
        assert store._connection is former
        await asleep(sidecar)
        sidecar.candidate._wake.set()
        await eventually(lambda: store._connection is not former)
        assert await failures(sidecar) == before


async def test_a_held_request_is_answered_before_the_acquire_is_logged(
    redis_server: RedisServer, redis: Redis, way: Proxy
) -> None:
    redis.set(KEYS["tracker"], "b", ex=100)
    async with connected(redis_server, way, SLOW) as sidecar:
        candidate = sidecar.candidate
        events: list[str] = []
        grant, answered = candidate.granted, candidate._telemetry.answered

        def granted(name: str, arrived: float, client: str, token: int | None) -> tuple[float | None, View]:
            expires_in, view = grant(name, arrived, client, token)
            events.append("no" if expires_in is None else "answer")
            return expires_in, view

        def reported(lease: str, call: Call, outcome: Outcome, now: float) -> None:
            events.append(str(outcome))
            answered(lease, call, outcome, now)

        candidate.granted, candidate._telemetry.answered = granted, reported  # type: ignore[method-assign]
        asking = asyncio.create_task(sidecar.lead())
        await eventually(lambda: candidate.status("tracker").holder == "b")
        await asleep(sidecar)
        redis.delete(KEYS["tracker"])
        await asking
        await eventually(lambda: "acquired" in events)
        assert events.index("answer") < events.index("acquired")


async def test_without_a_client_each_outage_and_its_end_are_logged(
    redis_server: RedisServer, way: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sidecar")
    async with connected(redis_server, way, SLOW):
        for _ in range(2):
            caplog.clear()
            await way.refuse()
            await eventually(lambda: "Redis failed" in caplog.text)
            await way.accept()
            await eventually(lambda: "Redis answers again" in caplog.text)


async def test_a_held_request_is_answered_at_the_end_of_the_term_while_the_loop_waits_for_redis(
    redis_server: RedisServer,
) -> None:
    """The loop does not run in this test, so only the clock ends the term."""
    lease = leading(elapsed() - (BELIEVED - 0.5))
    store = RedisStore(at_port(redis_server.port), "a", T, clock=elapsed, failover_guard=False, min_replicas=0)
    telemetry = Telemetry("a", clock=elapsed)
    candidate = Candidate({"x": lease}, {"x": "key"}, store, T, telemetry, clock=elapsed, uniform=random.uniform)
    async with asyncio.timeout(T.ttl - T.grant_ttl):
        await candidate._hold(["x"], candidate.version(["x"]), T.ttl)
    assert not lease.leads(elapsed())


class SilentStore(RedisStore):
    """A store whose calls all time out."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(at_port(1), "a", T, clock=clock, failover_guard=False, min_replicas=0)

    async def open(self) -> Failure | None:
        return Failure("timeout", "no answer in time", may_execute=False)

    async def execute(self, calls: Sequence[KeyedCall], sent: Sent | None = None) -> list[Reply | Failure]:
        await asyncio.sleep(min(keyed.call.give_up_at for keyed in calls) - self._clock())
        return [Failure("timeout", "no answer in time", may_execute=True) for _ in calls]


def test_the_end_of_a_term_is_logged_although_a_call_is_always_under_way(caplog: pytest.LogCaptureFixture) -> None:
    """Redis does not answer, and the retries of two leases alternate."""
    caplog.set_level("INFO", "sidecar")
    loop = VirtualLoop(2.5)  # with this start, the term ends during a call for the other lease
    leases = {"led": leading(0.0), "other": fresh_lease(require_client=False)}
    keys, store, telemetry = {name: name for name in leases}, SilentStore(loop.time), Telemetry("a", clock=loop.time)
    candidate = Candidate(leases, keys, store, T, telemetry, clock=loop.time, uniform=random.uniform)

    async def elect() -> None:
        election = asyncio.create_task(candidate.run())
        await asyncio.sleep(BELIEVED + T.call_limit - loop.time())
        fields = [vars(record) for record in caplog.records]
        assert [each["seconds"] for each in fields if each["event"] == "term_ended"] == [BELIEVED]
        assert {each.get("state") for each in fields if each["lease"] == "led"} >= {State.DISCONNECTED}
        election.cancel()
        with suppress(asyncio.CancelledError):
            await election

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(elect())


class ScriptedStore(SilentStore):
    """A store that gives these replies, one for each call, at once. The last reply is repeated."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.replies: list[Reply] = []

    async def execute(self, calls: Sequence[KeyedCall], sent: Sent | None = None) -> list[Reply | Failure]:
        return [self.replies.pop(0) if len(self.replies) > 1 else self.replies[0] for _ in calls]


def test_a_late_reply_after_a_long_silence_logs_no_holder_that_has_gone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "sidecar")
    loop = VirtualLoop(0.0)
    store, telemetry = ScriptedStore(loop.time), Telemetry("a", clock=loop.time)
    leases = {"led": fresh_lease()}
    candidate = Candidate(leases, {"led": "led"}, store, T, telemetry, clock=loop.time, uniform=random.uniform)

    async def elect() -> None:
        election = asyncio.create_task(candidate.run())
        store.replies = [Reply(Outcome.HELD, "b", ttl=T.ttl)]
        candidate.asked("led")
        await asyncio.sleep(10 * T.ttl)
        assert candidate.status("led").state is State.WAITING
        store.replies = [Reply(Outcome.LATE), Reply(Outcome.ACQUIRED, "a", 7, T.ttl)]
        caplog.clear()
        candidate.asked("led")
        await asyncio.sleep(T.call_limit)
        events = [vars(record)["event"] for record in caplog.records]
        assert [event for event in events if not event.startswith("redis_")] == ["term_began"]
        election.cancel()
        with suppress(asyncio.CancelledError):
            await election

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(elect())
