"""Sidecar processes with real signals and a Redis that fails in every way; the client uses only HTTP."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from redis import Redis

from ops.local.servers import RedisServer, free_port
from runtime.clock import elapsed
from sidecar.redis.store import fence_of
from tests.sidecar.conftest import client_of, command
from tests.support.processes import Process, RealSidecar, killed_at_exit
from tests.support.waiting import ROUNDS, eventually

LEASE = "background_services"
SMALL = {"LEASE_TTL": "3", "HEARTBEAT_INTERVAL": "1", "GRANT_TTL": "0.6", "REDIS_TIMEOUT": "0.7", "LOG_FORMAT": "json"}
"""Short timings, for tests in which terms or grants end."""
STEADY = SMALL | {"LEASE_TTL": "30", "GRANT_TTL": "10", "REDIS_TIMEOUT": "5"}
"""Timings under which nothing ends during a pause of the machine of several seconds."""


class Asker:
    """A client that sends requests without the client library, and records when it may assume that it leads."""

    def __init__(self, sidecar: RealSidecar, session: aiohttp.ClientSession) -> None:
        self.sidecar = sidecar
        self.believes: list[tuple[float, float, int]] = []
        """Begin, end and token of each grant, by the clock that all processes share."""
        self.last: dict[str, Any] = {}
        self._session = session

    async def ask(self, **query: str) -> dict[str, Any]:
        sent_at = elapsed()
        async with self._session.get(f"{self.sidecar.url}/is-leader/{LEASE}", params=query) as response:
            self.last = dict(await response.json())
        if self.last["is_leader"]:
            self.believes.append((elapsed(), sent_at + self.last["expires_in"], self.last["token"]))
        return self.last

    async def campaign(self) -> None:
        """Ask forever, also while the sidecar is not running."""
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with asyncio.timeout(2):
                    await self.ask()
            await asyncio.sleep(0.05)

    async def status(self) -> dict[str, Any]:
        async with self._session.get(f"{self.sidecar.url}/status") as response:
            status: dict[str, Any] = await response.json()
        return {**status, **status["leases"][LEASE]}

    async def is_healthy(self) -> bool:
        """True if one of several probes succeeds: after a freeze the sidecar is unhealthy until its loop has run."""
        for _ in range(ROUNDS):
            async with self._session.get(f"{self.sidecar.url}/healthz") as response:
                if response.status == 200:
                    return True
        return False

    async def resign(self) -> None:
        """End the current grant and resign."""
        self.believes = [(begin, min(end, elapsed()), token) for begin, end, token in self.believes]
        headers = {"X-Lease-Client": "test"}
        async with self._session.post(f"{self.sidecar.url}/resign/{LEASE}", headers=headers) as response:
            assert response.status == 200

    async def metric(self, line: str) -> bool:
        async with self._session.get(self.sidecar.metrics_url) as response:
            return line in await response.text()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def server(redis_of_its_own: RedisServer) -> RedisServer:
    return redis_of_its_own


@pytest.fixture
def redis(server: RedisServer) -> Iterator[Redis]:
    with client_of(server) as client:
        yield client


@pytest.fixture
async def one(
    server: RedisServer, tmp_path: Path, session: aiohttp.ClientSession, request: pytest.FixtureRequest
) -> AsyncIterator[Asker]:
    """The client of a sidecar that answers. The parameter is the sidecar's timings; the default is `STEADY`."""
    sidecar = RealSidecar(tmp_path, server, "task-a", **getattr(request, "param", STEADY))
    with killed_at_exit(sidecar):
        sidecar.start()
        asker = Asker(sidecar, session)
        await eventually(asker.status)
        yield asker


@pytest.fixture
async def leader(one: Asker) -> AsyncIterator[Asker]:
    """The client of a sidecar that leads. The client keeps asking."""
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(one.campaign())
        await eventually(lambda: one.last.get("is_leader"))
        yield one
        asking.cancel()


FORGETFUL = STEADY | {"GRANT_TTL": "0.6"}
"""Timings under which demand ends soon, but the lease does not."""

timed = pytest.mark.parametrize("one", [SMALL], ids=["small"], indirect=True)


async def lead(asker: Asker) -> None:
    """Ask until the sidecar grants the lease."""
    async with asyncio.timeout(20):
        while not (await asker.ask())["is_leader"]:
            pass


def key(asker: Asker) -> str:
    return asker.sidecar.environment["LEASE_KEY"].replace("{name}", LEASE)


def logged(process: Process, message: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in process.output.splitlines() if line.startswith("{")]
    return [line for line in lines if message in line["message"]]


@pytest.mark.parametrize("one", [STEADY | {"GRANT_TTL": "3"}], ids=["3 s"], indirect=True)
async def test_sigterm_waits_for_the_last_grant_deletes_the_key_and_exits_with_0(one: Asker, redis: Redis) -> None:
    await lead(one)
    held = asyncio.create_task(one.ask(wait="5", version=one.last["version"]))
    await asyncio.sleep(0)
    one.sidecar.send(signal.SIGTERM)
    answer = await held
    _, believed_until, _ = one.believes[-1]
    if not answer["is_leader"]:
        assert answer["state"] == "draining"
    await eventually(lambda: not redis.exists(key(one)))
    assert elapsed() >= believed_until - 0.01
    assert one.sidecar.wait() == 0


async def test_a_resign_after_sigterm_ends_the_wait_for_the_last_grant(leader: Asker, redis: Redis) -> None:
    async with leader._session.get(f"{leader.sidecar.url}/status"):
        leader.sidecar.send(signal.SIGTERM)
    await eventually(lambda: leader.last.get("state") == "draining")
    _, believed_until, _ = leader.believes[-1]
    await leader.resign()
    assert leader.sidecar.wait() == 0
    assert elapsed() < believed_until
    assert not redis.exists(key(leader))


@pytest.mark.parametrize("one", [SMALL | {"LEASE_TTL": "60"}], ids=["a lease of 60 s"], indirect=True)
async def test_sigterm_ends_the_sidecar_in_time_while_redis_is_frozen(leader: Asker, server: RedisServer) -> None:
    server.pause()
    began = time.monotonic()
    assert leader.sidecar.stop(signal.SIGTERM) == 0
    assert time.monotonic() - began < 0.6 + 3 * 0.7 + 15  # the grant, three calls, and a slow machine


async def test_a_sidecar_restarted_after_a_kill_adopts_its_term(leader: Asker, redis: Redis) -> None:
    token = leader.last["token"]
    leader.sidecar.stop(signal.SIGKILL)
    assert redis.expire(key(leader), 60)  # the start of the process may take long on a busy machine
    leader.believes.clear()
    leader.sidecar.start()
    await eventually(lambda: leader.believes)
    assert leader.believes[0][2] == token


@pytest.mark.slow
@pytest.mark.parametrize("one", [SMALL | {"FAILOVER_GUARD": "true"}], ids=["guarded"], indirect=True)
async def test_a_sidecar_restarted_during_the_failover_guard_gives_its_term_to_no_new_client(
    one: Asker, redis: Redis, session: aiohttp.ClientSession
) -> None:
    await lead(one)
    one.sidecar.stop(signal.SIGKILL)
    redis.hset(fence_of(key(one)), "run_id", "another")
    redis.set(key(one), "task-a")  # without a TTL, so the key outlives the guard
    one.sidecar.start()

    async def token_of_new_client() -> int | None:
        url = f"{one.sidecar.url}/is-leader/{LEASE}"
        async with session.get(url, headers={"X-Lease-Client": "new"}) as response:
            token: int | None = (await response.json())["token"]
            return token

    assert await eventually(token_of_new_client) > one.last["token"]


@timed
async def test_a_sidecar_frozen_past_its_deadline_does_not_report_leadership(one: Asker) -> None:
    await lead(one)
    one.sidecar.send(signal.SIGSTOP)
    lead_until = elapsed() + 3
    asking = asyncio.create_task(one.ask())
    await eventually(lambda: elapsed() > lead_until)  # the latest deadline of the term
    one.sidecar.send(signal.SIGCONT)
    assert (await asking)["is_leader"] is False


async def test_a_disable_stops_the_leader_at_once_and_the_election_continues_after_it_ends(
    leader: Asker, redis: Redis
) -> None:
    redis.set(key(leader), "DISABLED", ex=60)
    await eventually(lambda: leader.last.get("state") == "disabled")
    assert (leader.last["is_leader"], leader.last["holder"]) == (False, "DISABLED")
    leader.believes.clear()
    began = elapsed()
    redis.pexpire(key(leader), 1500)
    await eventually(lambda: leader.believes)
    assert leader.believes[0][0] - began >= 1.5


async def test_a_deleted_key_is_acquired_again_with_a_newer_token(leader: Asker, redis: Redis) -> None:
    token = leader.last["token"]
    redis.delete(key(leader))
    await eventually(lambda: (leader.last.get("token") or 0) > token)
    await eventually(lambda: redis.get(key(leader)) == "task-a")


async def test_the_watch_notices_a_disable_at_once(
    server: RedisServer, redis: Redis, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """The heartbeat is 20 s, so only the watch can report the change.

    The shortest of five times counts, because the machine may be busy.
    """
    long = {"LEASE_TTL": "60", "HEARTBEAT_INTERVAL": "20", "GRANT_TTL": "5", "REDIS_TIMEOUT": "5"}
    sidecar = RealSidecar(tmp_path, server, "task-a", **long)
    with killed_at_exit(sidecar):
        sidecar.start()
        asker = Asker(sidecar, session)

        async def watches() -> bool:
            return bool((await asker.status())["watch"]["mode"] == "tracking")

        async def time_until(word: Callable[[], Any], is_shown: Callable[[dict[str, Any]], bool]) -> float:
            began = elapsed()
            word()
            async with asyncio.timeout(15):
                while not is_shown(asker.last):
                    await asker.ask(wait="2", version=asker.last["version"])
            return elapsed() - began

        await eventually(watches)
        await lead(asker)
        times: dict[str, list[float]] = {"disabled": [], "healed": [], "deleted": []}
        for _ in range(5):
            times["disabled"].append(
                await time_until(
                    lambda: redis.set(key(asker), "DISABLED", ex=60), lambda last: last["state"] == "disabled"
                )
            )
            times["healed"].append(await time_until(lambda: redis.delete(key(asker)), lambda last: last["is_leader"]))
            token = asker.last["token"]
            times["deleted"].append(
                await time_until(lambda: redis.delete(key(asker)), lambda last: (last["token"] or 0) > token)  # noqa: B023 - awaited within the turn
            )
        assert all(min(taken) < 0.25 for taken in times.values()), times


@pytest.mark.parametrize("one", [FORGETFUL], ids=["forgetful"], indirect=True)
async def test_a_client_that_dies_during_a_held_request_leaves_no_demand(one: Asker, redis: Redis) -> None:
    async def is_in(state: str) -> bool:
        return bool((await one.status())["state"] == state)

    async def follows() -> bool:
        return bool((await one.ask())["holder"] == "task-b")

    redis.set(key(one), "task-b", ex=60)
    for _ in range(ROUNDS):
        await eventually(follows)
        held = asyncio.create_task(one.ask(wait="30", version=one.last["version"]))
        demand_until = elapsed() + 2 * float(FORGETFUL["GRANT_TTL"])
        await eventually(lambda: elapsed() > demand_until)  # noqa: B023 - awaited within the turn
        if not held.done():  # otherwise the request came after the demand had ended, and was answered at once
            break
    await eventually(lambda: is_in("following"))  # a held request counts as demand
    held.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await held
    await eventually(lambda: is_in("waiting"))


@pytest.mark.parametrize(
    ("setting", "value", "field", "word"),
    [("FAILOVER_GUARD", "true", "state", "guarded"), ("MIN_REPLICAS", "1", "trouble", "fewer replicas")],
)
async def test_the_failover_guard_and_min_replicas_apply_when_they_are_set(
    server: RedisServer, tmp_path: Path, session: aiohttp.ClientSession, setting: str, value: str, field: str, word: str
) -> None:
    """The server has just started, and has no replica."""
    sidecar = RealSidecar(tmp_path, server, "task-a", **SMALL)
    sidecar.environment |= {"LEASE_TTL": "30", setting: value}
    with killed_at_exit(sidecar):
        sidecar.start()
        asker = Asker(sidecar, session)
        await eventually(asker.status)

        async def reported() -> bool:
            assert (await asker.ask())["is_leader"] is False
            return word in str((await asker.status())[field])

        await eventually(reported)


async def test_each_transition_is_logged_once_in_the_guides_words_with_fields(leader: Asker, redis: Redis) -> None:
    token = leader.last["token"]
    redis.set(key(leader), "someone-else", ex=60)
    await eventually(lambda: not leader.last["is_leader"])
    redis.delete(key(leader))
    await eventually(lambda: (leader.last.get("token") or 0) > token)
    await eventually(lambda: len(logged(leader.sidecar, "is the LEADER")) == 2)
    began, again = logged(leader.sidecar, "Instance task-a is the LEADER, starting background services")
    [lost] = logged(leader.sidecar, "Instance task-a is NOT the leader, skipping background services")
    assert (began["lease"], began["instance"], began["token"], began["reason"]) == (LEASE, "task-a", token, "acquired")
    assert (lost["lease"], lost["token"], lost["reason"]) == (LEASE, token, "held")
    assert again["token"] > token
    assert began["time"].endswith("Z")


async def test_the_health_check_prints_nothing_and_exits_with_the_health(one: Asker) -> None:
    def check() -> subprocess.CompletedProcess[bytes]:
        words = [sys.executable, "-m", "sidecar", "healthcheck"]
        return subprocess.run(words, env=one.sidecar.environment, capture_output=True, check=False, timeout=60)

    for _ in range(ROUNDS):  # the check waits for two seconds, and a sidecar may be paused for longer
        well = await asyncio.to_thread(check)
        assert (well.stdout, well.stderr) == (b"", b"")
        if well.returncode == 0:
            break
    assert well.returncode == 0
    one.sidecar.stop(signal.SIGKILL)
    gone = await asyncio.to_thread(check)
    assert (gone.returncode, gone.stdout, gone.stderr) == (1, b"", b"")


async def test_a_sigterm_during_the_start_ends_the_sidecar(server: RedisServer, tmp_path: Path) -> None:
    """The kernel delivers to the first process of a container only the signals that have a handler.

    Without a handler for SIGTERM the process would run until SIGKILL.
    """
    asked = asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()  # returns once the sidecar closes the connection
        writer.close()

    async with await asyncio.start_server(never_answer, "127.0.0.1", 0) as metadata:
        sidecar = RealSidecar(tmp_path, server, "", **STEADY)
        sidecar.environment["ECS_CONTAINER_METADATA_URI_V4"] = _url(metadata)
        with killed_at_exit(sidecar):
            sidecar.start()
            await asked.wait()
            assert await asyncio.to_thread(sidecar.stop, signal.SIGTERM) == 0
        assert logged(sidecar, "has given up its leases")


def _url(server: asyncio.Server) -> str:
    return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_without_require_client_a_sidecar_leads_without_a_request(
    server: RedisServer, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    sidecar = RealSidecar(tmp_path, server, "task-a", REQUIRE_CLIENT="false", **SMALL)
    with killed_at_exit(sidecar):
        sidecar.start()
        asker = Asker(sidecar, session)

        async def leads() -> bool:
            return bool((await asker.status())["state"] == "leading")

        await eventually(leads)


def _full(server: RedisServer, redis: Redis, _: Asker) -> None:
    redis.config_set("maxmemory", "1")


def _not_full(server: RedisServer, redis: Redis, _: Asker) -> None:
    redis.config_set("maxmemory", "0")


def _replica(server: RedisServer, redis: Redis, _: Asker) -> None:
    command(redis, "REPLICAOF", "127.0.0.1", str(free_port()))


def _primary(server: RedisServer, redis: Redis, _: Asker) -> None:
    command(redis, "REPLICAOF", "NO", "ONE")


def _make_key_a_list(server: RedisServer, redis: Redis, asker: Asker) -> None:
    with redis.pipeline() as transaction:  # otherwise the sidecar may acquire the lease between the two commands
        transaction.delete(key(asker))
        transaction.lpush(key(asker), "x")
        transaction.execute()


def _delete_key(server: RedisServer, redis: Redis, asker: Asker) -> None:
    redis.delete(key(asker))


def _locked(server: RedisServer, redis: Redis, _: Asker) -> None:
    redis.config_set("requirepass", "hunter2")
    redis.auth("hunter2")
    redis.client_kill_filter(_type="normal", skipme=True)


def _unlocked(server: RedisServer, redis: Redis, _: Asker) -> None:
    redis.config_set("requirepass", "")


Act = Callable[[RedisServer, Redis, Asker], None]


@pytest.mark.parametrize(
    ("harm", "heal", "word"),
    [
        pytest.param(lambda s, r, a: s.pause(), lambda s, r, a: s.resume(), "timeout", id="frozen"),
        pytest.param(lambda s, r, a: s.kill(), lambda s, r, a: s.start(), "connection", id="stopped, restarted empty"),
        pytest.param(_full, _not_full, "oom", id="out of memory"),
        pytest.param(_replica, _primary, "readonly", id="read-only"),
        pytest.param(_locked, _unlocked, "auth", id="wrong password"),
        pytest.param(_make_key_a_list, _delete_key, "not a string", id="wrong type"),
    ],
)
@timed
async def test_the_sidecar_reports_a_redis_fault_stays_healthy_and_recovers(
    leader: Asker, server: RedisServer, redis: Redis, harm: Act, heal: Act, word: str
) -> None:
    if word == "oom":  # a renewal needs no memory: the server refuses only a new term
        harm(server, redis, leader)
        redis.delete(key(leader))
    else:
        harm(server, redis, leader)

    async def reported() -> bool:
        return word in str((await leader.status())["trouble"])

    await eventually(reported)
    await eventually(lambda: not leader.last["is_leader"])
    assert await leader.is_healthy()
    assert any(word in line["message"] + line.get("kind", "") for line in logged(leader.sidecar, ""))
    if word != "not a string":
        assert await leader.metric(f'sidecar_redis_errors_total{{kind="{word}"}}')
    heal(server, redis, leader)
    await eventually(lambda: leader.last["is_leader"])

    async def well() -> bool:
        return (await leader.status())["trouble"] is None

    await eventually(well)
    assert await leader.is_healthy()


@pytest.mark.slow
async def test_two_sidecars_never_both_lead_during_rolling_restarts(
    server: RedisServer, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    askers = [Asker(RealSidecar(tmp_path, server, name, **SMALL), session) for name in ("task-a", "task-b")]
    with killed_at_exit(*(asker.sidecar for asker in askers)):
        async with asyncio.TaskGroup() as tasks:
            asking = []
            for asker in askers:
                asker.sidecar.start()
                asking.append(tasks.create_task(asker.campaign()))
            for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
                await eventually(lambda: any(asker.last.get("is_leader") for asker in askers))
                leads, follows = sorted(askers, key=lambda asker: not asker.last.get("is_leader"))
                leads.sidecar.stop(number)
                leads.last = {}
                follows.last = {}
                await eventually(lambda: any(asker.last.get("is_leader") for asker in askers))
                leads.sidecar.start()
            for task in asking:
                task.cancel()
    one, other = (asker.believes for asker in askers)
    overlaps = [(a, b) for a in one for b in other if a[0] < b[1] and b[0] < a[1]]
    assert overlaps == []
    order = sorted(one + other)
    assert [token for _, _, token in order] == sorted(token for _, _, token in order)
