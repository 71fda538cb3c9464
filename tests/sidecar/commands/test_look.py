"""The commands' texts for rare states of a lease, and for a lease that changes between a look and a script."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import count

import pytest
from redis import Redis

from ops.local.servers import RedisServer
from runtime.clock import elapsed
from sidecar.commands.connection import MALFORMED, CommandError, CommandRedis
from sidecar.commands.fence import fence
from sidecar.commands.history import history
from sidecar.commands.layout import COLUMNS, Layout
from sidecar.commands.look import look, parse
from sidecar.commands.step_down import limit_of, step_down
from sidecar.commands.view import View
from sidecar.redis.connection import Connector
from sidecar.settings import Settings, read
from tests.sidecar.commands.test_operator import Run
from tests.sidecar.commands.test_operator import run as run
from tests.sidecar.conftest import client_of, command
from tests.support.script_caller import FENCE, KEY, Caller

LEASE = "background_services"


class Interrupted(CommandRedis):
    """A connection that calls `interrupt` before script number `number`, as if another program acted at that moment."""

    def __init__(self, settings: Settings, number: int, interrupt: Callable[[], object]) -> None:
        super().__init__(Connector(settings.redis, settings.kind), settings.redis.place)
        self._left = number
        self._interrupt = interrupt

    async def run_script(
        self, text: str, keys: Sequence[str], *arguments: str | int, words: int | None = None
    ) -> list[str]:
        self._left -= 1
        if not self._left:
            self._interrupt()
        return await super().run_script(text, keys, *arguments, words=words)


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    return read({"REDIS_URL": redis_server.url, "LEASE_KEY": "portfolio:{name}:leader"})


def test_a_key_of_another_type_is_shown_with_its_problem(redis: Redis, run: Run) -> None:
    redis.rpush(KEY, "a")
    status, output, _ = run("leaders")
    assert status == 0
    assert output.splitlines()[1].split()[:2] == [LEASE, "?"]
    assert f"{LEASE}: the key is not a string: somebody must delete it" in output
    assert "no token; the key is not a string" in run("fence", LEASE)[1]


def test_a_requested_step_down_is_shown(redis: Redis, run: Run) -> None:
    redis.hset(FENCE, "step_down", Caller(redis).acquire().token)
    assert f"{LEASE}: a was asked to step down" in run("leaders")[1]


def test_a_token_beyond_the_calendar_is_shown(redis: Redis, run: Run) -> None:
    redis.hset(FENCE, "token", "9" * 20)
    assert f"token {'9' * 20} (a time after the year 9999) of nobody" in run("fence", LEASE, "--dry-run")[1]


CHANGES: dict[str, tuple[Callable[[Redis], object], str]] = {
    "released": (lambda redis: redis.delete(KEY), "nobody holds the lease any more"),
    "disabled": (lambda redis: redis.set(KEY, "DISABLED"), "the lease has just been disabled"),
    "taken": (lambda redis: redis.set(KEY, "b"), "another term has just begun; look again"),
    "of another type": (
        lambda redis: (redis.delete(KEY), redis.rpush(KEY, "a")), "the key is not a string: somebody must delete it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
async def test_a_holder_that_lost_the_lease_after_the_look_is_not_asked_to_step_down(
    redis: Redis, settings: Settings, change: str
) -> None:
    Caller(redis).acquire()
    action, reason = CHANGES[change]
    connection = Interrupted(settings, 2, lambda: action(redis))
    with pytest.raises(CommandError) as refused:
        await step_down(connection, settings, LEASE, say=pytest.fail, clock=elapsed)
    await connection.close()
    assert str(refused.value) == f"{LEASE}: nobody was asked to step down: {reason}"
    assert not redis.hexists(FENCE, "step_down")


def release(redis: Redis) -> None:
    """Release the lease at the same server."""
    Caller(redis).release(str(redis.hget(FENCE, "token")))


def release_at_another_server(redis: Redis) -> None:
    """Release the lease; the next candidate sees a server that has not acted on the lease."""
    release(redis)
    redis.hset(FENCE, mapping={"run_id": "f" * 40, "replid": "e" * 40})
    assert Caller(redis, "b", guarding=True).acquire().outcome == "guarded"


SENTINELS = {"REDIS_SENTINELS": "127.0.0.1:1", "REDIS_SENTINEL_MASTER": "portfolio", "REDIS_TIMEOUT": "2"}
GUARD = "; the Redis server has changed or restarted, and the failover guard allows no new term for {} s after that"


@pytest.mark.parametrize(
    ("action", "changes", "guard"),
    [
        (release_at_another_server, {}, GUARD.format(30)),
        (release_at_another_server, SENTINELS, GUARD.format(50)),
        (release_at_another_server, {"FAILOVER_GUARD": "false"}, ""),
        (Redis.flushall, {}, GUARD.format(30)),
        (release, {}, ""),
    ],
    ids=["another-server", "another-server-of-sentinels", "without-the-guard", "lost-data", "the-same-server"],
)
async def test_a_step_down_that_the_failover_guard_delays_names_the_guard(
    redis: Redis, settings: Settings, action: Callable[[Redis], object], changes: dict[str, str], guard: str
) -> None:
    Caller(redis).acquire()
    connection = Interrupted(settings, 3, lambda: action(redis))
    asked = read({"LEASE_KEY": "portfolio:{name}:leader"} | changes)
    limit = limit_of(asked.timings)
    times = count(0, limit * 0.999)  # one look after the request
    report = await step_down(connection, asked, LEASE, say=lambda _: None, clock=lambda: next(times))
    await connection.close()
    assert report.failure == f"{LEASE}: nobody acquired the lease within {limit:.0f} s, and nobody leads{guard}"


def test_a_vacant_lease_that_the_failover_guard_may_delay_is_shown(redis: Redis, run: Run) -> None:
    note = "the Redis server has changed"
    Caller(redis).acquire()
    release_at_another_server(redis)
    assert note in run("leaders")[1]
    Caller(redis).acquire()
    assert note not in run("leaders")[1]
    Caller(redis, guarding=True).renew(str(redis.hget(FENCE, "token")))
    release(redis)
    assert note not in run("leaders")[1]


def test_a_read_only_replica_is_shown_if_the_account_may_call_info(any_redis_of_its_own: RedisServer, run: Run) -> None:
    note = f"{LEASE}: this Redis is a read-only replica: no term can begin here"
    with client_of(any_redis_of_its_own) as redis:

        def is_shown() -> bool:
            status, output, _ = run("leaders", REDIS_URL=any_redis_of_its_own.url)
            assert status == 0
            return note in output

        assert not is_shown()
        command(redis, "REPLICAOF", "127.0.0.1", "1")
        assert is_shown()
        command(redis, "ACL", "SETUSER", "default", "-info")
        assert not is_shown()
        command(redis, "ACL", "SETUSER", "default", "+info")
        redis.config_set("replica-read-only", "no")
        assert not is_shown()


async def test_a_fence_that_was_repaired_after_the_look_is_not_repaired_again(redis: Redis, settings: Settings) -> None:
    redis.set(KEY, "DISABLED", px=60_000)
    token = Caller(redis).look().time
    redis.hset(FENCE, "token", token)
    connection = Interrupted(settings, 2, lambda: redis.hset(FENCE, "token", token + 2))
    with pytest.raises(CommandError, match="not repaired: the fence has changed meanwhile"):
        await fence(connection, LEASE, KEY, ttl=1e-9, above=token + 1, dry_run=False, say=lambda _: None, clock=elapsed)
    await connection.close()
    assert redis.hget(FENCE, "token") == str(token + 2)


class Foreign(CommandRedis):
    """The connection to a program that answers every script with one word."""

    def __init__(self) -> None:
        """Connect to nothing."""

    async def run_script(self, *_: object, words: int | None = None) -> list[str]:
        return ["word"]


async def test_an_answer_of_another_shape_is_a_one_line_error() -> None:
    with pytest.raises(CommandError, match=MALFORMED):
        await look(Foreign(), KEY)
    with pytest.raises(CommandError, match=MALFORMED):
        await history(Foreign(), LEASE, KEY, Layout(COLUMNS))


@pytest.mark.parametrize(("place", "word"), [(3, "9" * 400), (3, "-3"), (4, "9" * 400), (4, "-1")])
def test_a_number_out_of_range_is_a_one_line_error(place: int, word: str) -> None:
    answer = ["sound", "none", "a", "29000", "1", "1", "a", "1", "", "", "", "", "", "", ""]
    answer[place] = word
    with pytest.raises(CommandError, match=MALFORMED):
        parse(answer)


def test_the_table_leaves_out_unseen_leases_and_explains_late_changes() -> None:
    view = View(
        {LEASE: KEY, "unseen": "key"}, "127.0.0.1", clock=elapsed, now=lambda: datetime.now(UTC), report=lambda _: None
    )
    view.saw(LEASE, parse(["sound", "none", "a", "29000", "1", "1", "a", "1", "", "", "", "", "", "", ""]))
    view.late = "no permission for the command CLIENT TRACKING"
    table = view.table(Layout(COLUMNS))
    assert [line.split()[0] for line in table[:2]] == ["lease", LEASE]
    assert " ".join(line.strip() for line in table[2:]) == f"a change may be shown a second late: {view.late}"
