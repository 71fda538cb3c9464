"""The answers of a faulty Redis never count as a success.

Each failure is reported with its kind, and calls succeed again after the fault.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from ops.local.servers import RedisServer
from sidecar.protocol import Kind, Outcome, Reply, Timings
from sidecar.redis.store import fence_of
from tests.sidecar.conftest import BINARIES, client_of, command
from tests.support.storing import KEY, Storing, at_port, storing
from tests.support.waiting import eventually

SECRET = "correct-horse"


async def test_a_wrong_password_is_reported_without_the_password(any_redis: Redis, any_server: RedisServer) -> None:
    command(any_redis, "CONFIG", "SET", "requirepass", "another")
    try:
        async with storing(at_port(any_server.port)) as store:
            assert (await store.failure(Kind.ACQUIRE)).kind == "auth"
        async with storing(at_port(any_server.port, password=SECRET)) as store:
            failure = await store.failure(Kind.ACQUIRE)
            assert (failure.kind, failure.may_execute) == ("auth", False)
            assert SECRET not in failure.text
            command(any_redis, "CONFIG", "SET", "requirepass", SECRET)
            assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
    finally:
        command(any_redis, "CONFIG", "SET", "requirepass", "")


@pytest.mark.parametrize("rights", [["-eval"], ["resetkeys", "~elsewhere"], ["-set"], ["-time"]])
async def test_a_missing_right_is_reported_as_no_permission(
    any_redis: Redis, any_server: RedisServer, rights: list[str]
) -> None:
    command(any_redis, "ACL", "SETUSER", "sidecar", "on", f">{SECRET}", "~*", "&*", "+@all", *rights)
    try:
        async with storing(at_port(any_server.port, username="sidecar", password=SECRET)) as store:
            failure = await store.failure(Kind.ACQUIRE)
            assert failure.kind == "noperm", failure.text
            assert SECRET not in failure.text
            assert any_redis.exists(KEY) == 0
            command(any_redis, "ACL", "SETUSER", "sidecar", "~*", "+@all")
            assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
    finally:
        command(any_redis, "ACL", "DELUSER", "sidecar")


async def test_a_server_with_a_long_running_script_is_reported_as_busy(
    any_redis: Redis, any_server: RedisServer
) -> None:
    any_redis.config_set("lua-time-limit", "50")
    async with storing(at_port(any_server.port)) as store:
        assert await store.outcome(Kind.LOOK) is Outcome.VACANT
        with client_of(any_server) as other:
            endless = asyncio.create_task(asyncio.to_thread(_run_for_ever, other))
            try:
                await eventually(lambda: _is_busy(any_redis))
                assert (await store.failure(Kind.ACQUIRE)).kind == "busy"
            finally:
                command(any_redis, "SCRIPT", "KILL")
                await endless
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
    any_redis.config_set("lua-time-limit", "5000")


def _run_for_ever(redis: Redis) -> None:
    with suppress(ResponseError):  # the script is killed
        redis.eval("while true do end", 0)


def _is_busy(redis: Redis) -> bool:
    try:
        redis.ping()
    except ResponseError as error:
        return "BUSY" in str(error)
    return False


async def trouble(
    server: RedisServer, kind: str, begin: Callable[[Redis], object], end: Callable[[Redis], object]
) -> None:
    """Check that calls fail during the fault, and that the leader then continues to lead over a new connection."""
    with client_of(server) as redis:
        async with storing(at_port(server.port), timings=Timings()) as store:  # a ttl of 30 s outlasts the fault
            assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
            connected = redis.info("stats")["total_connections_received"]
            begin(redis)
            redis_knows = redis.get(KEY) if kind != "masterdown" else None
            failures = [await store.failure(Kind.RELEASE), await store.failure(Kind.ACQUIRE)]
            assert [failure.kind for failure in failures] == [kind] * 2, failures
            assert redis_knows in ("a", None)
            end(redis)
            assert await store.outcome(Kind.RENEW) is Outcome.RENEWED
            assert redis.info("stats")["total_connections_received"] > connected


async def test_a_primary_that_became_a_replica_is_reported_as_read_only(any_redis_of_its_own: RedisServer) -> None:
    await trouble(
        any_redis_of_its_own,
        "readonly",
        lambda redis: command(redis, "REPLICAOF", "127.0.0.1", "1"),
        lambda redis: command(redis, "REPLICAOF", "NO", "ONE"),
    )


async def test_a_replica_without_its_primary_that_serves_no_stale_data_is_reported(
    any_redis_of_its_own: RedisServer,
) -> None:
    def begin(redis: Redis) -> None:
        redis.config_set("replica-serve-stale-data", "no")
        command(redis, "REPLICAOF", "127.0.0.1", "1")

    await trouble(any_redis_of_its_own, "masterdown", begin, lambda redis: command(redis, "REPLICAOF", "NO", "ONE"))


@pytest.mark.parametrize("binary", sorted(BINARIES))
async def test_a_server_that_cannot_save_to_disk_refuses_writes(tmp_path: Path, binary: str) -> None:
    def begin(redis: Redis) -> None:
        (tmp_path / "taken").mkdir()
        redis.config_set("save", "3600 1")
        redis.bgsave()
        while redis.info("persistence")["rdb_last_bgsave_status"] != "err":
            pass

    with RedisServer(tmp_path, binary=BINARIES[binary], arguments=("--dbfilename", "taken")) as server:
        await trouble(server, "misconf", begin, lambda redis: redis.config_set("save", ""))


async def test_a_server_out_of_memory_refuses_a_new_term_and_keeps_the_current_term(
    any_redis: Redis, any_server: RedisServer
) -> None:
    async with storing(at_port(any_server.port)) as store:
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
        any_redis.config_set("maxmemory", "1")
        try:
            assert await store.outcome(Kind.RENEW) is Outcome.RENEWED
            assert await store.outcome(Kind.RELEASE) is Outcome.RELEASED
            assert (await store.failure(Kind.ACQUIRE)).kind == "oom"
        finally:
            any_redis.config_set("maxmemory", "0")
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED


@pytest.mark.parametrize("binary", sorted(BINARIES))
async def test_a_server_that_is_still_loading_is_reported_as_loading(tmp_path: Path, binary: str) -> None:
    with RedisServer(tmp_path, binary=BINARIES[binary]) as server, client_of(server) as redis:
        redis.config_set("rdbcompression", "no")
        redis.mset({f"key-{number}": "x" * 20_000 for number in range(1000)})
        redis.save()
        server.kill()
    with RedisServer(tmp_path, binary=BINARIES[binary], arguments=("--key-load-delay", "10000")) as server:
        async with storing(at_port(server.port)) as store:
            assert (await store.failure(Kind.ACQUIRE)).kind == "loading"
            server.kill()
            server.arguments = ()
            await server.start_beside()
            await eventually(lambda: _answered(store))


async def _answered(store: Storing) -> bool:
    return isinstance(await store.call(Kind.ACQUIRE), Reply)


async def test_a_key_of_the_wrong_type_is_an_outcome_and_not_a_failure(
    any_redis: Redis, any_server: RedisServer
) -> None:
    any_redis.lpush(KEY, "x")
    async with storing(at_port(any_server.port)) as store:
        assert await store.outcome(Kind.ACQUIRE) is Outcome.WRONG_TYPE
        any_redis.delete(KEY)
        assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED


async def test_a_term_is_not_confirmed_without_enough_replicas(any_redis: Redis, any_server: RedisServer) -> None:
    async with storing(at_port(any_server.port), min_replicas=1) as store:
        assert await store.outcome(Kind.ACQUIRE) is Outcome.UNCONFIRMED
        assert await store.outcome(Kind.LOOK) is Outcome.SUPERSEDED, "a look needs no replica"


async def test_a_term_is_not_confirmed_if_the_replicas_reply_too_late(
    any_redis: Redis, any_server: RedisServer
) -> None:
    patient = Timings(ttl=60.0, heartbeat=2.0, grant_ttl=1.0, call_limit=20.0)  # WAIT gets half of this limit
    async with storing(at_port(any_server.port), min_replicas=1, timings=patient) as store:
        assert await store.store.open() is None
        failed = await store.timeout(Kind.ACQUIRE, limit=2.0)
        assert any_redis.get(KEY) == "a"
        assert failed.may_execute


async def test_a_term_is_confirmed_while_enough_replicas_are_connected(
    any_redis_of_its_own: RedisServer, tmp_path: Path
) -> None:
    with client_of(any_redis_of_its_own) as redis:
        redis.config_set("repl-diskless-sync-delay", "0")
    replica = RedisServer(
        tmp_path / "replica", binary=any_redis_of_its_own.binary,
        arguments=("--replicaof", "127.0.0.1", str(any_redis_of_its_own.port)),
    )  # fmt: skip
    with replica, client_of(any_redis_of_its_own) as redis:
        await eventually(lambda: redis.info("replication").get("slave0", {}).get("state") == "online")
        # The key must not expire during the test.
        long = Timings(ttl=60.0, heartbeat=2.0, grant_ttl=1.0, call_limit=0.5)
        async with storing(at_port(any_redis_of_its_own.port), min_replicas=1, timings=long) as store:
            await eventually(
                lambda: _is_confirmed(store, Kind.ACQUIRE)
            )  # a replica on a busy machine may answer too late
            await eventually(lambda: _is_confirmed(store, Kind.RENEW))
            replica.pause()
            redis.pexpire(KEY, 30_000)
            assert await store.outcome(Kind.RENEW) is Outcome.UNCONFIRMED
            replica.resume()
            await eventually(lambda: _is_confirmed(store, Kind.RENEW))


async def _is_confirmed(store: Storing, kind: Kind) -> bool:
    return await store.outcome(kind) in (Outcome.ACQUIRED, Outcome.ADOPTED, Outcome.RENEWED)


async def test_a_term_is_not_confirmed_if_wait_is_refused(any_redis: Redis, any_server: RedisServer) -> None:
    """The refusal stands for a managed Redis without WAIT."""
    command(any_redis, "ACL", "SETUSER", "sidecar", "on", ">x", "~*", "&*", "+@all", "-wait")
    try:
        async with storing(at_port(any_server.port, username="sidecar", password="x"), min_replicas=1) as store:
            failure = await store.failure(Kind.ACQUIRE)
            assert (failure.kind, failure.may_execute) == ("noperm", True)
    finally:
        command(any_redis, "ACL", "DELUSER", "sidecar")


async def test_a_failure_of_one_lease_keeps_the_connection_of_the_other_lease(
    any_redis: Redis, any_server: RedisServer
) -> None:
    """A new connection would not make Redis accept a refused key.

    So the store replaces the connection only if no other lease uses it.
    """
    rights = ("resetkeys", f"~{KEY}", f"~{fence_of(KEY)}", "&*", "+@all")
    command(any_redis, "ACL", "SETUSER", "sidecar", "reset", "on", f">{SECRET}", *rights)
    try:
        async with storing(at_port(any_server.port, username="sidecar", password=SECRET)) as store:
            assert await store.outcome(Kind.ACQUIRE) is Outcome.ACQUIRED
            connection = store.store._connection
            for _ in range(3):
                refused = await store.call(Kind.ACQUIRE, key="another", limit=10.0)
                assert not isinstance(refused, Reply)
                assert refused.kind == "noperm"
                assert store.store._connection is connection
                assert store.store.connected
            assert await store.outcome(Kind.RENEW) is Outcome.RENEWED
    finally:
        command(any_redis, "ACL", "DELUSER", "sidecar")
