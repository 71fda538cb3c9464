"""A sidecar in the test's process, with real sockets, a real Redis, and access to its parts."""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from ops.local.servers import RedisServer
from runtime.clock import elapsed
from runtime.listener import Limits
from sidecar.control import METRICS_LIMITS, Control, metrics_app
from sidecar.election.candidate import Candidate
from sidecar.election.lease import Lease
from sidecar.protocol import Timings
from sidecar.redis.history import Histories
from sidecar.redis.store import RedisStore
from sidecar.redis.watch import RedisWatch
from sidecar.telemetry import Telemetry
from tests.support.listening import listening
from tests.support.storing import at_port

KEYS = {"tracker": "test:tracker:leader", "scheduler": "test:scheduler:leader"}
TIMINGS = Timings(ttl=30.0, heartbeat=1.0, grant_ttl=5.0, call_limit=5.0)
"""Timings that tolerate a machine that stands still for seconds."""
QUICK = Timings(ttl=3.0, heartbeat=1.0, grant_ttl=0.5, call_limit=0.4)
"""Timings for tests in which a term or a grant must run out."""


@dataclass
class Served:
    """The parts and the addresses of the sidecar, and an HTTP client."""

    candidate: Candidate
    election: asyncio.Task[None]
    """The task of `candidate.run()`."""
    watch: RedisWatch
    session: aiohttp.ClientSession
    url: str
    metrics_url: str
    app: web.Application
    """The application of the control listener."""

    async def get(self, path: str, **params: object) -> dict[str, Any]:
        """The JSON object of the answer to a GET, which must succeed."""
        async with self.session.get(f"{self.url}{path}", params={k: str(v) for k, v in params.items()}) as response:
            assert response.status == 200, await response.text()
            answer: dict[str, Any] = await response.json()
            return answer

    async def refusal(self, method: str, path: str, *, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """Status and JSON object of an error."""
        async with self.session.request(method, f"{self.url}{path}", headers=headers) as response:
            return response.status, await response.json()

    async def resign(self, name: str = "tracker") -> None:
        async with self.session.post(f"{self.url}/resign/{name}", headers={"X-Lease-Client": "test"}) as response:
            assert response.status == 200

    async def lead(self, name: str = "tracker") -> dict[str, Any]:
        """Ask until the sidecar leads, and return its last answer."""
        async with asyncio.timeout(20):
            answer = await self.get(f"/is-leader/{name}")
            while not answer["is_leader"]:
                answer = await self.get(f"/is-leader/{name}", wait=1, version=answer["version"])
            return answer

    async def metric(self, sample: str) -> float:
        """The value of a sample, named with its labels as in the metrics. The sample must exist."""
        async with self.session.get(f"{self.metrics_url}/metrics") as response:
            values = dict(line.rsplit(" ", 1) for line in (await response.text()).splitlines() if line[0] != "#")
            return float(values[sample])

    async def state(self, name: str = "tracker") -> str:
        """The lease's state, read without a request that counts as demand for the lease."""
        return str((await self.get("/status"))["leases"][name]["state"])


@asynccontextmanager
async def served(
    redis: RedisServer,
    instance_id: str = "a",
    *,
    timings: Timings = TIMINGS,
    guard: bool = False,
    calls: int | None = None,
    limits: Limits = METRICS_LIMITS,
    uniform: Callable[[float, float], float] = random.uniform,
) -> AsyncIterator[Served]:
    """A sidecar wired as in `sidecar.run`, on free ports; it ends without a drain.

    Args:
        redis: the Redis server.
        instance_id: the name of the sidecar.
        timings: the durations of the protocol.
        guard: whether the failover guard is on.
        calls: the port of a proxy for the calls to Redis; the watch connects to Redis directly.
        limits: the limits of the metrics listener's connections.
        uniform: draws a number between two bounds.
    """
    boot, connect = secrets.token_hex(4), at_port(redis.port)
    leases = {name: Lease(instance_id, timings, boot=boot, now=elapsed(), uniform=uniform) for name in KEYS}
    store = RedisStore(
        at_port(calls or redis.port), instance_id, timings, clock=elapsed, failover_guard=guard, min_replicas=0
    )
    telemetry = Telemetry(instance_id, clock=elapsed)
    candidate = Candidate(leases, KEYS, store, timings, telemetry, clock=elapsed, uniform=uniform)
    watch = RedisWatch(
        connect, KEYS, candidate.noticed, candidate.step_down_noticed, relay=candidate.relay_noticed,
        limit=timings.call_limit, interval=timings.heartbeat, uniform=uniform,
    )  # fmt: skip
    candidate.choose_watch = watch.choose
    telemetry.watch(candidate.statuses, store, watch)
    histories = Histories(connect, KEYS, limit=timings.call_limit, clock=elapsed)
    control = Control(
        candidate, instance_id, timings,
        boot=boot, clock=elapsed, status=lambda: {"more": "told"}, history=histories.terms,
    )  # fmt: skip
    async with AsyncExitStack() as stack:
        app = control.app()
        url = await stack.enter_async_context(listening(_runner(app), at_once=control.answer_at_once))
        metrics = metrics_app(telemetry.registry, control.healthz, control.leader)
        metrics_url = await stack.enter_async_context(listening(_runner(metrics), limits))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        tasks = [asyncio.create_task(candidate.run()), asyncio.create_task(watch.run())]
        try:
            yield Served(candidate, tasks[0], watch, session, url, metrics_url, app)
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


def _runner(app: web.Application) -> web.AppRunner:
    return web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.2)
