"""The example clients in Node and Go, with a real sidecar and with a hostile one: `make languages`.

The file is not named test_*.py, so that `make test` needs neither Node nor Go.
"""

import asyncio
import signal
import time
from pathlib import Path

import pytest
import redis
from aiohttp import web

from ops.local.servers import RedisServer, free_port
from tests.sidecar.client.test_hostile import INVALID_ANSWERS
from tests.sidecar.wrapper.programs import BECOME, NAME, follows
from tests.support.hostile_sidecar import FakeSidecar, fake_sidecar
from tests.support.processes import SHORT_LEASE, Process, RealSidecar, killed_at_exit
from tests.support.waiting import eventually, undisturbed

Pair = tuple[RealSidecar, RealSidecar]
SAME_TO_NODE = {"token is 7.0"}
"""Invalid answers that JavaScript cannot detect, since it has one type of number."""


class Worker(Process):
    """An example program, which records the start and the end of its work in a diary."""

    def __init__(self, folder: Path, name: str, url: str, command: list[str]) -> None:
        self.file = folder / "diary"
        super().__init__(
            folder / f"{name}.log", ["-c", BECOME, *command, NAME], SIDECAR_URL=url, DIARY=str(self.file)
        )  # fmt: skip

    @property
    def diary(self) -> list[list[str]]:
        return [line.split() for line in self.file.read_text().splitlines()] if self.file.exists() else []

    def words(self) -> list[list[str]]:
        """Return each line's first two words: the event and the task."""
        return [line[:2] for line in self.diary]


async def test_a_sidecar_with_an_ipv6_address_is_asked(
    redis_of_its_own: RedisServer, tmp_path: Path, worker: list[str]
) -> None:
    port = free_port()
    sidecar = RealSidecar(tmp_path, redis_of_its_own, "task-a", CONTROL_BIND=f"[::1]:{port}")
    one = Worker(tmp_path, "worker", f"http://[::1]:{port}", worker)
    with killed_at_exit(one, sidecar):
        sidecar.start()
        one.start()
        await eventually(lambda: one.words() == [["begin", "task-a"]])


@pytest.mark.parametrize("sidecars", ["5"], indirect=True)
async def test_one_task_works_and_hands_over_on_sigterm(sidecars: Pair, tmp_path: Path, worker: list[str]) -> None:
    one, other = (Worker(tmp_path, f"worker-{i}", each.url, worker) for i, each in enumerate(sidecars))
    with killed_at_exit(one, other):
        one.start()
        await eventually(lambda: one.words() == [["begin", "task-a"]])
        other.start()
        await eventually(lambda: follows(sidecars[1]))
        one.send(signal.SIGTERM)
        await eventually(lambda: len(one.diary) == 3)
        assert await asyncio.to_thread(one.wait) == 0
        assert one.words() == [["begin", "task-a"], ["end", "task-a"], ["begin", "task-b"]]
        assert int(one.diary[2][2]) > int(one.diary[0][2])
        assert one.diary[1][3:] == ["in", "time"]
        await asyncio.sleep(6)  # longer than a grant, so the client must extend its grant
        assert len(one.diary) == 3
        assert await asyncio.to_thread(other.stop, signal.SIGTERM) == 0
    assert "client_silent" not in sidecars[0].output + sidecars[1].output, "each lease was resigned"


@pytest.mark.parametrize("sidecars", ["5"], indirect=True)
async def test_work_ends_before_the_deadline_if_the_sidecar_is_frozen(
    sidecars: Pair, tmp_path: Path, worker: list[str]
) -> None:
    one = Worker(tmp_path, "worker", sidecars[0].url, worker)

    async def check() -> None:
        one.file.unlink(missing_ok=True)
        with killed_at_exit(one):
            one.start()
            await eventually(lambda: one.diary)
            sidecars[0].send(signal.SIGSTOP)
            try:
                await eventually(lambda: len(one.diary) == 2, within=10)
                assert one.diary[1][3:] == ["in", "time"]
            finally:
                sidecars[0].send(signal.SIGCONT)
            await eventually(lambda: len(one.diary) == 3)

    await undisturbed(check, bears=0.1)


async def test_work_ends_before_the_deadline_while_redis_is_frozen(
    redis_of_its_own: RedisServer, tmp_path: Path, worker: list[str]
) -> None:
    """The sidecar answers, but all its grants end at the same time."""
    sidecar = RealSidecar(tmp_path, redis_of_its_own, "task-a", **SHORT_LEASE)
    one = Worker(tmp_path, "worker", sidecar.url, worker)

    async def check() -> None:
        one.file.unlink(missing_ok=True)
        with killed_at_exit(one):
            one.start()
            await eventually(lambda: one.diary)
            redis_of_its_own.pause()
            try:
                await eventually(lambda: len(one.diary) == 2)
                assert one.diary[1][3:] == ["in", "time"]
            finally:
                redis_of_its_own.resume()

    with killed_at_exit(sidecar):
        sidecar.start()
        await undisturbed(check, bears=0.1)


async def test_an_operator_s_command_stops_the_work_at_once(
    sidecars: Pair, tmp_path: Path, redis_server: RedisServer, worker: list[str]
) -> None:
    one = Worker(tmp_path, "worker", sidecars[0].url, worker)
    key = f"{tmp_path.name}:{NAME}"
    with killed_at_exit(one), redis.Redis.from_url(redis_server.url) as operator:
        one.start()
        await eventually(lambda: one.diary)
        operator.set(key, "DISABLED", ex=60)
        await eventually(lambda: len(one.diary) == 2, within=8)  # less than the heartbeat of 10 s
        operator.delete(key)
        await eventually(lambda: len(one.diary) == 3)


async def test_an_invalid_answer_grants_nothing_and_requests_stay_rare(tmp_path: Path, worker: list[str]) -> None:
    async with fake_sidecar() as fake:
        one = Worker(tmp_path, "worker", fake.url, worker)
        with killed_at_exit(one):
            one.start()
            await eventually(lambda: fake.polls)
            for name, body in INVALID_ANSWERS.items():
                if worker[0] == "node" and name in SAME_TO_NODE:
                    continue
                await _lie(fake, body)
                assert one.diary == [], name
            for status in (204, 302, 404, 500, 503):
                await _lie(fake, b"", status=status)
            fake.misbehave = fake.silence
            count = len(fake.polls)
            await eventually(lambda: len(fake.polls) > count + 1)
            fake.misbehave = _at_once
            count = len(fake.polls)
            await eventually(lambda: len(fake.polls) > count + 5)
            began, count = time.monotonic(), len(fake.polls)
            await asyncio.sleep(1)
            assert 1 < (len(fake.polls) - count) / (time.monotonic() - began) < 60
            assert one.diary == []
            fake.misbehave = None
            await fake.elect(7)
            await eventually(lambda: one.diary)
            assert one.diary[0][2] == "7"
            await fake.elect(8)  # a new term must not extend the old term
            await eventually(lambda: [line[0] for line in one.diary] == ["begin", "end", "begin"])
            assert [line[2] for line in one.diary] == ["7", "7", "8"]
            assert await asyncio.to_thread(one.stop, signal.SIGTERM) == 0
            assert fake.events[-1] == "resign"
            names = {headers["X-Lease-Client"] for headers in fake.headers}
            assert len(names) == 1


async def test_the_stop_signal_is_seen_before_the_next_request(tmp_path: Path, worker: list[str]) -> None:
    """The client waits before its next request, which would campaign and be held for ten seconds."""

    async def answer_and_stop(request: web.Request) -> web.StreamResponse:
        asyncio.get_running_loop().call_later(0.005, one.send, signal.SIGTERM)
        fake.misbehave = fake.silence
        return await _at_once(request)

    for _ in range(3):  # the signal may arrive a moment too late
        async with fake_sidecar() as fake:
            one = Worker(tmp_path, "worker", fake.url, worker)
            with killed_at_exit(one):
                one.start()
                await eventually(lambda: len(fake.polls) == 2)  # the second request is held
                fake.misbehave = answer_and_stop
                await fake.follow()  # answers the held request
                await eventually(lambda: len(fake.polls) == 3)
                async with asyncio.timeout(8):  # less than the ten seconds
                    assert await one.end() == 0
                assert (one.diary, fake.events) == ([], ["resign"])


async def _lie(fake: FakeSidecar, body: bytes, *, status: int = 200) -> None:
    """Send this answer from now on, and wait for two requests."""

    async def behave(_: web.Request) -> web.StreamResponse:
        headers = {"Location": "/an/honest/answer"} if status == 302 else {}
        return web.Response(body=body, status=status, content_type="application/json", headers=headers)

    count = len(fake.polls)
    fake.misbehave = behave
    await eventually(lambda: len(fake.polls) >= count + 2)


async def _at_once(_: web.Request) -> web.StreamResponse:
    """Return a valid answer at once, with a new version each time."""
    return web.json_response(
        {"lease": NAME, "is_leader": False, "instance_id": "task-a", "holder": None, "token": None,
         "expires_in": None, "state": "following", "version": f"0-{time.monotonic_ns()}"}
    )  # fmt: skip


async def test_one_silent_answer_leaves_time_for_another_request(tmp_path: Path, worker: list[str]) -> None:
    async def check() -> None:
        async with fake_sidecar() as fake:
            one = Worker(tmp_path, "worker", fake.url, worker)
            one.file.unlink(missing_ok=True)
            fake.grant = 3.0
            await fake.elect(7)
            with killed_at_exit(one):
                one.start()
                await eventually(lambda: one.diary)
                fake.misbehave = fake.silence
                count = len(fake.polls)
                await fake.elect(7)  # answers the held request
                await eventually(lambda: len(fake.polls) > count)
                fake.misbehave = None
                await eventually(lambda: len(fake.polls) > count + 5)  # 3.4 s, more than the grant
                assert (one.words(), fake.events) == ([["begin", "task-a"]], [])

    await undisturbed(check, bears=0.1)


async def test_a_grant_that_is_not_extended_ends_the_work_in_time(tmp_path: Path, worker: list[str]) -> None:
    async def check() -> None:
        async with fake_sidecar() as fake:
            one = Worker(tmp_path, "worker", fake.url, worker)
            one.file.unlink(missing_ok=True)
            fake.grant = 3.0
            await fake.elect(7)
            with killed_at_exit(one):
                one.start()
                await eventually(lambda: one.diary)
                fake.misbehave = fake.silence
                silent_at = time.monotonic()
                await eventually(lambda: len(one.diary) == 2, within=10)
                assert time.monotonic() < silent_at + 3
                assert one.diary[1][3:] == ["in", "time"]

    await undisturbed(check, bears=0.1)
