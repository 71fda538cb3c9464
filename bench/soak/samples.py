"""The samples of a soak: memory, descriptors, threads and asyncio tasks of each process, every few seconds."""

import asyncio
import re
from dataclasses import dataclass, field
from typing import NoReturn

import aiohttp
import psutil

from bench.soak.flat import DESCRIPTORS, MEASURES, MEMORY, TASKS, THREADS, Measure, Point
from bench.soak.fleet import LABELS, Fleet
from ops.local.programs import API, SIDECAR
from runtime.clock import elapsed

EVERY = 3.0
"""Seconds between two samples of a process."""
METRICS = {SIDECAR: "METRICS_BIND", API: "INTERNAL_BIND"}
"""Setting with the address of each container's /metrics."""
REDIS = "redis"

_TASKS = re.compile(rb"^python_asyncio_tasks ([0-9.]+)$", re.MULTILINE)
_RENEWALS = re.compile(rb"^sidecar_renewal_duration_seconds_count ([0-9.]+)$", re.MULTILINE)


@dataclass
class Life:
    """One process: its name, such as `task1 sidecar`, its pid, and the points of each measure."""

    name: str
    pid: int
    renewals: float = 0.0
    """Number of calls with which a sidecar has renewed so far."""
    points: dict[Measure, list[Point]] = field(default_factory=lambda: {measure: [] for measure in MEASURES})

    @property
    def ended(self) -> float:
        """The time of the last sample."""
        return self.points[MEMORY][-1][0]


class Sampler:
    """Samples the processes of a fleet. `lives` has each sampled process; times are seconds since `began`."""

    def __init__(self, fleet: Fleet, began: float) -> None:
        self._fleet = fleet
        self._began = began
        self._lives: dict[tuple[str, int], Life] = {}

    @property
    def lives(self) -> list[Life]:
        """The processes, in order of their first sample."""
        return list(self._lives.values())

    async def run(self) -> NoReturn:
        """Sample until cancelled."""
        due = elapsed()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=EVERY)) as session:
            while True:
                await self.sample(session)
                due = max(due + EVERY, elapsed())
                await asyncio.sleep(due - elapsed())

    async def sample(self, session: aiohttp.ClientSession) -> None:
        """Sample each process that runs, if its task is healthy."""
        if (redis := self._fleet.redis.process) is not None:
            self._measure(REDIS, redis.pid)
        for label in LABELS:
            if not self._fleet.is_steady(label):
                continue
            for container, pid in self._fleet.slots[label].task.pids.items():
                life = self._measure(f"{label} {container}", pid)
                metrics = await self._metrics(session, label, container)
                if life is not None and (tasks := _TASKS.search(metrics)):
                    life.points[TASKS].append((elapsed() - self._began, float(tasks[1])))
                if life is not None and (renewals := _RENEWALS.search(metrics)):
                    life.renewals = float(renewals[1])

    def _measure(self, name: str, pid: int) -> Life | None:
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                found = {
                    MEMORY: process.memory_info().rss / 2**20,
                    DESCRIPTORS: process.num_fds(),
                    THREADS: process.num_threads(),
                }
        except psutil.Error:  # the process has just ended
            return None
        life = self._lives.setdefault((name, pid), Life(name, pid))
        for measure, value in found.items():
            life.points[measure].append((elapsed() - self._began, value))
        return life

    async def _metrics(self, session: aiohttp.ClientSession, label: str, container: str) -> bytes:
        url = f"http://{self._fleet.address(label, container, METRICS[container])}/metrics"
        try:
            async with session.get(url) as answer:
                return await answer.read()
        except (aiohttp.ClientError, TimeoutError):
            return b""  # the container is restarting; the log and the visitors report any other reason
