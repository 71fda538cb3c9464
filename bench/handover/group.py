"""The candidates of one contender on one server, and the rounds that they run."""

import asyncio
import os
import random
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from bench.environments import ROOT
from bench.handover.contenders import Contender
from bench.handover.servers import LeaseServer, NoLease
from ops.local.processes import die_with_us
from ops.local.servers import free_port

WITHIN = 60.0
"""Timeout for each event, in seconds."""
WARM_UP = 3
"""Number of uncounted hand-overs at the start of a turn, so that usually every candidate has led once."""
LEAD = (0.5, 1.5)
"""Minimum and maximum duration of a leader's work before SIGKILL, in seconds."""

_uniform = random.SystemRandom().uniform


class Stuck(Exception):
    """A contender did not do what a round needs; the text is one line for the user."""


@dataclass(eq=False)
class Candidate:
    """The processes of one candidate: the program, and its sidecar if it has one."""

    program: Process
    sidecar: Process | None
    log: Path
    """The file with the program's log."""
    renewed: float | None = None
    """The time of the last renewal, if the program reports its renewals."""
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    killed: bool = False
    listening: asyncio.Task[None] | None = None
    """The task that reads the events."""

    def campaign(self) -> None:
        """Let the program campaign once."""
        assert self.program.stdin is not None
        self.program.stdin.write(b"\n")

    def end_work(self) -> None:
        """Send SIGTERM to the program."""
        _signal(self.program, signal.SIGTERM)

    def freeze(self) -> None:
        """Send SIGSTOP to every process."""
        self._send(signal.SIGSTOP)

    async def kill(self) -> None:
        """Kill the processes, and wait for their end."""
        self.killed = True
        self._send(signal.SIGKILL)
        for process in self._processes():
            await process.wait()
        if self.listening is not None:
            await self.listening

    def _processes(self) -> list[Process]:
        return [process for process in (self.program, self.sidecar) if process is not None]

    def _send(self, number: signal.Signals) -> None:
        for process in self._processes():
            _signal(process, number)


def _signal(process: Process, number: signal.Signals) -> None:
    """Send a signal if the process runs. asyncio's `send_signal` could reap the process and so lose its exit code."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


@dataclass(frozen=True)
class Event:
    """A word and a time that a candidate reported. The word is `gone` if the program has exited."""

    by: Candidate
    word: str
    at: float


@dataclass(frozen=True)
class HandOver:
    """The time of the end of the work, and of the first line of the next work."""

    ended: float
    began: float

    @property
    def seconds(self) -> float:
        """The seconds from the end of the work to the first line of the next work."""
        return self.began - self.ended


@dataclass
class Group:
    """The candidates of one contender. `group` starts and ends it."""

    contender: Contender
    python: Path
    server: LeaseServer
    folder: Path
    ttl: float | None
    """The duration of the lease in seconds; None for the library's default."""
    candidates: list[Candidate] = field(default_factory=list)
    _started: int = 0
    _events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)

    async def add(self) -> Candidate:
        """Start a candidate; returns when the candidate is ready to campaign."""
        self._started += 1
        sidecar, url = None, self.server.url
        if self.contender.sidecar:
            port = free_port()
            url = f"http://127.0.0.1:{port}"
            sidecar_log = self.folder / f"sidecar-{self._started}.log"
            sidecar = await self._start(
                Path(sys.executable), "-m", "sidecar", stdout=None, settings=self._settings(port), log=sidecar_log
            )
            async with self._limit("its sidecar did not start", sidecar_log):
                await _healthy(f"{url}/healthz")
        module = f"bench.handover.candidates.{self.contender.program}"
        arguments = [*self.contender.arguments, url]
        if self.ttl is not None and sidecar is None:
            arguments.append(f"{self.ttl:g}")
        log = self.folder / f"program-{self._started}.log"
        program = await self._start(self.python, "-m", module, *arguments, stdout=PIPE, settings={}, log=log)
        candidate = Candidate(program, sidecar, log)
        self.candidates.append(candidate)
        candidate.listening = asyncio.create_task(self._listen(candidate))
        async with self._limit("did not start", log):
            await candidate.ready.wait()
        return candidate

    async def hand_overs(self, rounds: int, done: Callable[[], object]) -> tuple[list[HandOver], Candidate]:
        """End the leader's work by SIGTERM a number of times; returns the hand-overs and the last leader."""
        leader = await self.elect()
        took = []
        for number in range(WARM_UP + rounds):
            former, (hand_over, leader) = leader, await self._hand_over(leader)
            former.campaign()
            if number >= WARM_UP:
                took.append(hand_over)
                done()
        return took, leader

    async def rest(self, leader: Candidate) -> None:
        """End the candidates' work one after the other, until no candidate campaigns."""
        for _ in self.candidates[1:]:
            _, leader = await self._hand_over(leader)
        leader.end_work()
        await self._next()

    async def elect(self) -> Candidate:
        """Let every candidate campaign; returns the leader."""
        for candidate in self.candidates:
            candidate.campaign()
        return (await self._next()).by

    async def loss(self, leader: Candidate) -> tuple[float, Candidate]:
        """Kill the leader while it works (or its successor, if it has lost the lease), and start another candidate.

        Returns the seconds from the expiry of the lease to the first line of the next work, and the next leader.
        """
        assert self.ttl is not None
        await asyncio.sleep(_uniform(*LEAD))
        while not self._events.empty():  # the machine stood still, and the leader lost its lease
            leader = (await self._next()).by
        leader.freeze()  # no renewal comes between the read of the expiry and the kill
        try:
            expires = self.server.expiry(leader.program.pid, self.ttl, leader.renewed)
        except NoLease as error:
            raise Stuck(f"{self.contender.name}: the leader lost the lease before it was killed: {error}") from None
        await leader.kill()
        self.candidates.remove(leader)
        (await self.add()).campaign()
        event = await self._next()
        return event.at - expires, event.by

    async def _hand_over(self, leader: Candidate) -> tuple[HandOver, Candidate]:
        """End the leader's work; returns the hand-over and the next leader."""
        await asyncio.sleep(_uniform(*self.contender.hold))
        leader.end_work()
        found = {event.word: event for event in (await self._next(), await self._next())}
        if found.keys() != {"ended", "began"} or found["ended"].by is not leader:
            raise Stuck(f"{self.contender.name}: the events after SIGTERM were {' and '.join(found)}")
        hand_over = HandOver(found["ended"].at, found["began"].at)
        if hand_over.seconds <= 0:
            raise Stuck(f"{self.contender.name}: two candidates worked at once for {-1000 * hand_over.seconds:.2f} ms")
        return hand_over, found["began"].by

    async def _next(self) -> Event:
        """Return the next event of any candidate."""
        async with self._limit("no candidate did anything", self.candidates[-1].log):
            event = await self._events.get()
            while event.by.killed:  # a killed leader had reported this event before the kill
                event = await self._events.get()
        if event.word == "gone":
            raise Stuck(f"{self.contender.name}: a program ended: {_last_line(event.by.log)}")
        return event

    async def _listen(self, candidate: Candidate) -> None:
        """Read the events of a candidate until its output ends."""
        assert candidate.program.stdout is not None
        async for line in candidate.program.stdout:
            word, at = line.decode().split()
            match word:
                case "ready":
                    candidate.ready.set()
                case "renewed":
                    candidate.renewed = float(at)
                case _:
                    self._events.put_nowait(Event(candidate, word, float(at)))
        if not candidate.killed:
            self._events.put_nowait(Event(candidate, "gone", 0.0))

    @asynccontextmanager
    async def _limit(self, trouble: str, log: Path) -> AsyncIterator[None]:
        """Set a timeout for the block.

        Raises:
            Stuck: the block took too long.
        """
        try:
            async with asyncio.timeout(WITHIN):
                yield
        except TimeoutError:
            raise Stuck(f"{self.contender.name}: {trouble} within {WITHIN:g} s: {_last_line(log)}") from None

    async def _start(
        self, python: Path, *arguments: str, stdout: int | None, settings: Mapping[str, str], log: Path
    ) -> Process:
        """Start a program in this project's folder; its log is a file. Without `stdout` the log has the output, too."""
        with log.open("wb") as output:
            return await asyncio.create_subprocess_exec(
                python, *arguments, stdin=PIPE, stdout=stdout or output, stderr=output, cwd=ROOT,
                env={**os.environ, **settings}, preexec_fn=die_with_us(signal.SIGKILL),
            )  # fmt: skip

    def _settings(self, port: int) -> dict[str, str]:
        """Return the settings of a sidecar: the defaults, except for the ttl and the failover guard."""
        settings = {
            "REDIS_URL": self.server.url, "LEASES": "bench", "FAILOVER_GUARD": "false",
            "INSTANCE_ID": f"candidate-{self._started}",
            "CONTROL_BIND": f"127.0.0.1:{port}", "METRICS_BIND": f"127.0.0.1:{free_port()}",
        }  # fmt: skip
        if self.ttl is not None:  # the other times keep their ratio to the ttl
            settings |= {
                "LEASE_TTL": f"{self.ttl:g}",
                "HEARTBEAT_INTERVAL": f"{self.ttl / 3:g}",
                "GRANT_TTL": f"{self.ttl / 6:g}",
            }
        return settings


@asynccontextmanager
async def group(
    contender: Contender, python: Path, server: LeaseServer, folder: Path, *, ttl: float | None = None
) -> AsyncIterator[Group]:
    """Run the candidates of a contender while the block runs, and kill them at its end."""
    found = Group(contender, python, server, folder, ttl)
    try:
        for _ in range(contender.candidates):
            await found.add()
        yield found
    finally:
        for candidate in found.candidates:
            await candidate.kill()


async def _healthy(url: str) -> None:
    """Wait until the sidecar answers."""
    async with aiohttp.ClientSession() as session:
        while True:
            with suppress(aiohttp.ClientConnectionError):
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.02)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "the log is empty"
