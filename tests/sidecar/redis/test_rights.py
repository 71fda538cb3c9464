"""A Redis user with the least rights, and users that lack one right, with the effects that docs/redis.md lists."""

import asyncio
import logging
import re
from collections.abc import Callable

import pytest
from redis import Redis

from ops.local.servers import RedisServer
from sidecar.protocol import Kind, Outcome, Reply
from sidecar.redis.connection import RedisConnection
from sidecar.redis.failures import Failure
from sidecar.redis.history import HistoryUnavailable, read_history
from sidecar.redis.reconnects import FIRST
from sidecar.redis.store import fence_of
from sidecar.redis.watch import WatchMode
from tests.sidecar.conftest import command
from tests.sidecar.redis.test_watch import watching
from tests.support.redis_rights import COSTS, LEAST, OF_A_CLUSTER, OF_SENTINELS, give, user, without
from tests.support.storing import KEY, Storing, storing
from tests.support.waiting import eventually

FENCE = fence_of(KEY)
BEYOND = {"+wait", "+select", *OF_A_CLUSTER, *OF_SENTINELS}
"""Rights that only certain settings need, such as `+wait` for MIN_REPLICAS."""


def contents(redis: Redis) -> list[object]:
    return [redis.dump(KEY), redis.dump(FENCE), redis.dbsize()]


class Trial:
    """The calls of a term, sent as one user until the first call that fails.

    A refused call must change nothing.
    """

    def __init__(self, redis: Redis, store: Storing) -> None:
        self.redis = redis
        self.store = store
        self.refusals: list[str] = []

    async def outcome_of(self, kind: Kind) -> Outcome | None:
        """The outcome of a call, or None if the call was refused and changed nothing."""
        before = contents(self.redis)
        result = await self.store.call(kind, limit=10.0)
        if isinstance(result, Reply):
            return result.outcome
        assert isinstance(result, Failure)
        assert result.kind == "noperm", result
        assert contents(self.redis) == before, f"{kind} was refused, but changed something"
        self.refusals.append(result.text)
        return None

    async def first_loss(self) -> str:
        """What the user loses first, in the words of docs/redis.md."""
        if await self.outcome_of(Kind.ACQUIRE) is not Outcome.ACQUIRED:
            return "nobody leads"
        self.redis.pexpire(KEY, 1000)
        if await self.outcome_of(Kind.RENEW) is not Outcome.RENEWED:
            return "no renewal"
        assert await self.outcome_of(Kind.ACQUIRE) is Outcome.ADOPTED
        if await self.outcome_of(Kind.RELEASE) is not Outcome.RELEASED:
            return "no release"
        if self.store.store.guard != "on":
            assert self.store.store.eviction_policy is None
            return "no guard"
        if self.store.store.history == "refused":
            return "no history"
        return {"sent": "nothing", "refused": "no notices sent"}[str(self.store.store.release_notice)]


def record_server(redis: Redis) -> None:
    """Record this server as the last one that acted on the lease; also record an earlier change of the server."""
    info = redis.info()
    redis.hset(FENCE, mapping={"run_id": info["run_id"], "replid": info["master_replid"], "changed": "another"})


async def loss_of(redis: Redis, connect: Callable[[], RedisConnection]) -> tuple[str, list[str]]:
    """What the user of this connection loses, and the texts of the refusals."""
    record_server(redis)
    async with storing(connect, guard=True) as store:
        opened = await store.store.open()
        trial = Trial(redis, store)
        what = await trial.first_loss()
        refusals = trial.refusals + ([opened.text] if opened is not None else [])
    async with watching(connect) as watch:
        await eventually(lambda: watch.watch.mode is not WatchMode.OFF or watch.watch.refusal)
        if watch.watch.mode is WatchMode.OFF:
            what = "no watch" if what == "nothing" else what
        elif watch.watch.mode is WatchMode.NOTICES:
            what = "only notices received" if what == "nothing" else what
        refusals += [watch.watch.refusal] if watch.watch.refusal else []
    if what == "nothing":
        try:
            assert await read_history(connect, KEY, 10.0)
        except HistoryUnavailable as error:
            return "no history shown", [*refusals, str(error)]
    return what, refusals


async def test_the_documented_least_rights_are_enough_for_every_call(any_redis: Redis) -> None:
    with user(any_redis, LEAST) as connect:
        assert await loss_of(any_redis, connect) == ("nothing", [])


@pytest.mark.parametrize("right", sorted(set(COSTS) - BEYOND))
async def test_a_missing_right_has_the_documented_effect_and_is_named(any_redis: Redis, right: str) -> None:
    with user(any_redis, without(right)) as connect:
        what, refusals = await loss_of(any_redis, connect)
    text = " ".join(refusals)
    assert what == COSTS[right]
    if what not in ("nothing", "no notices sent", "no guard", "no history"):
        assert _refused_right_in_words(right) in text, text
    assert not re.search("[0-9a-f]{40}|user_script", text)


def _refused_right_in_words(right: str) -> str:
    if right.startswith("+client|") or right == "+client":
        return "the command CLIENT"
    kinds = {"+": "the command {}", "~": "the key {}", "&": "the channel {}"}
    plain = {"~portfolio:*": KEY, "~fence:{portfolio:*": KEY, "&__redis__:invalidate": right[1:]}
    return kinds[right[0]].format(plain.get(right, right[1:].upper()))


def test_every_right_is_documented() -> None:
    assert set(COSTS) == {right for right in LEAST if right[0] in "+~&"} | BEYOND


async def test_min_replicas_needs_wait_and_reports_it(any_redis: Redis) -> None:
    with user(any_redis, LEAST) as connect:
        async with storing(connect, min_replicas=1) as store:
            failure = await store.failure(Kind.ACQUIRE)
    assert (failure.kind, "the command WAIT" in failure.text) == ("noperm", True)


async def test_a_database_number_needs_select_and_reports_it(any_redis: Redis) -> None:
    with user(any_redis, LEAST, database=1) as connect:
        async with storing(connect) as store:
            failure = await store.store.open()
            assert failure is not None
            assert (failure.kind, "the command SELECT" in failure.text) == ("noperm", True)
    with user(any_redis, [*LEAST, "+select"], database=1) as connect:
        async with storing(connect) as store:
            assert await store.store.open() is None


async def test_a_refused_channel_of_one_lease_does_not_affect_the_other(any_redis: Redis) -> None:
    rights = [*without("&portfolio:*:changed", "&__redis__:invalidate"), f"&{KEY}:changed"]
    with user(any_redis, rights) as connect:
        async with watching(connect) as watch:
            await watch.connected(WatchMode.NOTICES)
            assert "portfolio:daily_scheduler:leader:changed" in str(watch.watch.refusal)
            assert f"the channel {KEY}:changed" not in str(watch.watch.refusal)
            any_redis.publish(f"{KEY}:changed", "released")
            await watch.reports("tracker")


async def test_each_fallback_of_the_watch_is_logged_once_with_its_effect_and_so_is_the_recovery(
    any_redis: Redis, any_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The watch tries a refused command again over a new connection, after a pause, until the command is allowed."""
    caplog.set_level(logging.INFO, "sidecar.redis.watch")
    levels: list[tuple[str, str]] = []

    def log_lines() -> list[tuple[str, str]]:
        return [(record.levelname, record.getMessage()) for record in caplog.records]

    with user(any_redis, without("&__redis__:invalidate", "&portfolio:*:changed")) as connect:
        async with watching(connect) as watch:
            await eventually(lambda: "no permission" in (watch.watch.refusal or ""))
            before = any_redis.info("stats")["total_connections_received"]
            await eventually(lambda: any_redis.info("stats")["total_connections_received"] >= before + 3)
            assert watch.watch.mode is WatchMode.OFF
            levels += log_lines()
            assert len(levels) == 1, "the watch tried again, but logged once"
            assert levels[0][0] == "WARNING"
            assert levels[0][1].startswith("There is no watch: ")
            assert "the channel __redis__:invalidate" in levels[0][1]
            assert "A hand-over takes up to" in levels[0][1]
            give(any_redis, without("&__redis__:invalidate"))
            await eventually(lambda: watch.watch.mode is WatchMode.NOTICES)
            await eventually(lambda: len(log_lines()) == 2)
            assert log_lines()[1][0] == "WARNING"
            assert log_lines()[1][1].startswith("The watch receives only releases and operators' commands: ")
            give(any_redis, LEAST)
            await eventually(lambda: watch.watch.mode is WatchMode.TRACKING)
            assert watch.watch.refusal is None
            assert log_lines()[2:] == [("INFO", "The watch receives every change again")]
            watch.changes.clear()
            any_redis.set(KEY, "b")
            await watch.reports("tracker")


async def test_a_right_revoked_while_the_watch_runs_disables_only_that_part(any_redis: Redis) -> None:
    with user(any_redis, LEAST) as connect:
        async with watching(connect) as watch:
            await watch.connected(WatchMode.TRACKING)
            give(any_redis, without("&__redis__:invalidate"))
            command(any_redis, "CLIENT", "KILL", "TYPE", "pubsub")
            await eventually(lambda: watch.watch.mode is WatchMode.NOTICES)


async def test_a_refused_watch_does_not_reconnect_every_second(any_redis: Redis) -> None:
    """After the first refusal the watch waits for `retry` seconds, not for the short pause after a lost connection."""
    with user(any_redis, without("&__redis__:invalidate", "&portfolio:*:changed")) as connect:
        async with watching(connect, retry=3600.0) as watch:
            await eventually(lambda: "no permission" in (watch.watch.refusal or ""))
            before = any_redis.info("stats")["total_connections_received"]
            await asyncio.sleep(20 * FIRST)
            assert any_redis.info("stats")["total_connections_received"] == before
