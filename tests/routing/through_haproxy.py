"""Two tasks behind a real HAProxy that sends requests only to the leader: `make proxy`.

The file is not named test_*.py, so that `make test` needs no HAProxy.
"""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from ops.local.servers import RedisServer, free_port
from tests.support.processes import ROOT, Process, killed_at_exit
from tests.support.waiting import eventually

CHECK_INTERVAL = 1.0
"""Value of `inter` in ops/haproxy/haproxy.cfg, in seconds."""
CHECK_LIMIT = 1.0
"""Value of `timeout check` in ops/haproxy/haproxy.cfg, in seconds."""


@dataclass
class Answer:
    """The answer to one request through the proxy."""

    sent: float
    status: int
    task: str


class Task:
    """A sidecar and a service, on their own loopback address."""

    def __init__(self, folder: Path, redis: RedisServer, name: str, address: str, api: int, metrics: int) -> None:
        control = free_port()
        self.name, self.direct = name, f"http://{address}:{api}/work"
        self.sidecar = Process(
            folder / f"{name}-sidecar.log", ["-m", "sidecar"], REDIS_URL=redis.url, INSTANCE_ID=name,
            CONTROL_BIND=f"127.0.0.1:{control}", METRICS_BIND=f"{address}:{metrics}", LEASES="background_services",
            LEASE_KEY=f"{folder.name}:{{name}}", FAILOVER_GUARD="false", LEASE_TTL="6", HEARTBEAT_INTERVAL="2",
            GRANT_TTL="3", REDIS_TIMEOUT="1",
        )  # fmt: skip
        self.app = Process(
            folder / f"{name}-app.log", ["-m", "tests.routing.app", name, address, str(api), str(folder / "work.db")],
            SIDECAR_URL=f"http://127.0.0.1:{control}", LINGER="5",
        )  # fmt: skip

    def start(self) -> None:
        self.sidecar.start()
        self.app.start()


@contextmanager
def haproxy(folder: Path, **variables: str) -> Iterator[None]:
    """Run HAProxy with the configuration of this repository."""
    config = ROOT / "ops" / "haproxy" / "haproxy.cfg"
    with (folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen(
            ["haproxy", "-db", "-f", config], env={**os.environ, **variables}, stdout=log, stderr=log
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait()


class Traffic:
    """Requests through the proxy, one after the other."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: list[Answer] = []

    async def run(self) -> None:
        """Send requests until cancelled."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
            while True:
                sent = time.monotonic()
                try:
                    async with session.post(self.url) as response:
                        body = await response.json() if response.content_type == "application/json" else {}
                        self.answers.append(Answer(sent, response.status, body.get("task", "")))
                except aiohttp.ClientError:  # the proxy closed the session
                    self.answers.append(Answer(sent, 0, ""))
                await asyncio.sleep(0.01)

    def last(self) -> Answer:
        return self.answers[-1]


@dataclass
class Fleet:
    """The two tasks, and the address of their proxy."""

    one: Task
    other: Task
    url: str
    database: Path


@pytest.fixture
async def fleet(redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[Fleet]:
    database = tmp_path / "work.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE work (token INTEGER, writer TEXT, writes INTEGER)")
        connection.execute("INSERT INTO work VALUES (0, '', 0)")
    connection.close()
    front, api, metrics = free_port(), free_port(), free_port()
    one = Task(tmp_path, redis_server, "task-a", "127.0.0.2", api, metrics)
    other = Task(tmp_path, redis_server, "task-b", "127.0.0.3", api, metrics)
    variables = {"TASK_A": "127.0.0.2", "TASK_B": "127.0.0.3", "API_PORT": str(api), "METRICS_PORT": str(metrics)}
    with (
        killed_at_exit(one.sidecar, one.app, other.sidecar, other.app),
        haproxy(tmp_path, LEADER_BIND=f"127.0.0.1:{front}", **variables),
    ):
        one.start()
        url = f"http://127.0.0.1:{front}/work"
        await eventually(lambda: _served_by(url, "task-a"), within=60)
        other.start()
        await eventually(lambda: _answers(other), within=60)
        yield Fleet(one, other, url, database)


async def _served_by(url: str, task: str) -> bool:
    async with aiohttp.ClientSession() as session, session.post(url) as response:
        return response.status == 200 and (await response.json())["task"] == task


async def _answers(task: Task) -> bool:
    async with aiohttp.ClientSession() as session, session.post(task.direct) as response:
        return response.status == 503


async def test_requests_follow_the_lead_within_a_check_and_the_fence_refuses_the_old_leader(fleet: Fleet) -> None:
    traffic = Traffic(fleet.url)
    asking = asyncio.create_task(traffic.run())
    await eventually(lambda: len(traffic.answers) > 50)
    assert {(answer.status, answer.task) for answer in traffic.answers} == {(200, "task-a")}
    assert fleet.one.app.process is not None
    resigned = time.monotonic()
    fleet.one.app.send(signal.SIGTERM)  # it resigns the lease, and continues to serve for five seconds
    await eventually(lambda: traffic.last().status == 200 and traffic.last().task == "task-b")
    arrived = time.monotonic()
    # This request is like one that passes the old leader's check before the hand-over and writes after the hand-over.
    async with aiohttp.ClientSession() as session, session.post(fleet.one.direct, params={"stale": ""}) as response:
        assert await response.json() == {"task": "task-a", "written": False}, "the fence refuses the older token"
    await asyncio.sleep(2 * CHECK_INTERVAL)
    asking.cancel()
    await asyncio.wait((asking,))
    after = [answer for answer in traffic.answers if answer.sent > arrived]
    assert {(answer.status, answer.task) for answer in after} == {(200, "task-b")}
    late = [answer for answer in traffic.answers if answer.sent > resigned and answer.task == "task-a"]
    until = max((answer.sent - resigned for answer in late), default=0.0)
    sys.stdout.write(f"\nhand-over: {len(late)} requests reached the old leader for {until:.2f} s;"
          f" the new leader was reached after {arrived - resigned:.2f} s\n")  # fmt: skip
    assert until < CHECK_INTERVAL + CHECK_LIMIT + 2, "check interval, check limit, and 2 s for a busy machine"
    with sqlite3.connect(fleet.database) as connection:
        ((writer,),) = connection.execute("SELECT writer FROM work")
    connection.close()
    assert writer == "task-b"


async def test_a_lost_task_is_replaced_when_its_lease_expires(fleet: Fleet) -> None:
    for process in (fleet.one.app, fleet.one.sidecar):
        process.stop(signal.SIGKILL)
    lost = time.monotonic()
    await eventually(lambda: _served_by(fleet.url, "task-b"), within=20)
    sys.stdout.write(
        f"\na lost task: the other task was reached after {time.monotonic() - lost:.2f} s; the lease's ttl is 6 s\n"
    )


async def test_requests_get_503_while_no_task_leads(fleet: Fleet) -> None:
    for task in (fleet.one, fleet.other):
        task.sidecar.stop(signal.SIGTERM)

    async def refused() -> bool:
        async with aiohttp.ClientSession() as session, session.post(fleet.url) as response:
            return response.status == 503 and response.content_type == "text/html"

    await eventually(refused)


@dataclass
class Member:
    """A service that answers each request with `status`, and the check of its sidecar, which answers with `check`."""

    status: int
    check: int
    asked: int = 0
    """Number of requests to the service."""

    @asynccontextmanager
    async def serve(self, address: str, api: int, metrics: int) -> AsyncIterator[None]:
        """Serve on two ports of an address."""
        runners = [await _listen(self._answer, address, api), await _listen(self._checked, address, metrics)]
        try:
            yield
        finally:
            for runner in runners:
                await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        await request.read()
        return web.Response(status=self.status)

    async def _checked(self, _: web.Request) -> web.Response:
        return web.Response(status=self.check)


async def _listen(handler: Callable[[web.Request], Awaitable[web.Response]], address: str, port: int) -> web.AppRunner:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, address, port).start()
    return runner


@dataclass
class Pair:
    """The old leader and the new leader behind the proxy, which listens on the port `front`."""

    old: Member
    new: Member
    front: int

    async def post(self, size: int) -> int:
        """Send a request with a body of `size` bytes; return the status of the answer.

        The body is sent after the header has reached a service, or after half a second if the proxy waits for the body.
        """
        asked = self.old.asked + self.new.asked
        reader, writer = await asyncio.open_connection("127.0.0.1", self.front)
        try:
            writer.write(f"POST /work HTTP/1.1\r\nHost: leader\r\nContent-Length: {size}\r\n\r\n".encode())
            with suppress(TimeoutError):
                await eventually(lambda: self.old.asked + self.new.asked > asked, within=0.5)
            writer.write(b"x" * size)
            return int((await reader.readline()).split()[1])
        finally:
            writer.close()

    async def statuses(self, size: int) -> set[int]:
        """Send requests until the old leader has been asked; return the statuses of all answers."""
        self.old.asked = self.new.asked = 0
        found = {await self.post(size)}
        while not self.old.asked:  # the proxy may send a request to the new leader first
            found.add(await self.post(size))
        return found


@asynccontextmanager
async def pair(folder: Path, old: Member, new: Member) -> AsyncIterator[Pair]:
    front, api, metrics = free_port(), free_port(), free_port()
    variables = {"TASK_A": "127.0.0.2", "TASK_B": "127.0.0.3", "API_PORT": str(api), "METRICS_PORT": str(metrics)}
    async with old.serve("127.0.0.2", api, metrics), new.serve("127.0.0.3", api, metrics):
        with haproxy(folder, LEADER_BIND=f"127.0.0.1:{front}", **variables):
            found = Pair(old, new, front)

            async def knows_the_states() -> bool:
                """Whether the requests reach exactly the services whose checks answer with 200."""
                old.asked = new.asked = 0
                with suppress(OSError):
                    for _ in range(4):
                        await found.post(0)
                return [member.asked > 0 for member in (old, new)] == [member.check == 200 for member in (old, new)]

            await eventually(knows_the_states, within=30)
            yield found


async def test_the_proxy_repeats_a_small_request_that_the_old_leader_refused(tmp_path: Path) -> None:
    """The checks have found the new leader, but have not yet found that the old leader no longer leads."""
    async with pair(tmp_path, Member(status=503, check=200), Member(status=200, check=200)) as members:
        assert await members.statuses(size=10) == {200}
        assert await members.statuses(size=10_000) == {200}
        assert 503 in await members.statuses(size=100_000), (
            "a larger body does not fit into the proxy's buffer, as docs/routing.md states"
        )


async def test_the_client_gets_the_refusal_until_a_check_has_found_the_new_leader(tmp_path: Path) -> None:
    async with pair(tmp_path, Member(status=503, check=200), Member(status=200, check=503)) as members:
        assert await members.statuses(size=10) == {503}
        members.new.check = 200

        async def served() -> bool:
            return await members.post(10) == 200

        await eventually(served, within=30)
