"""The cost of more candidates on one Redis: `python -m bench.growth`.

All candidates campaign for the lease. Two measured candidates have a process each. The other candidates, the crowd,
share two processes of the lowest priority. For each size of the fleet the benchmark counts Redis's scripts and
processor time in a steady state, hands the lease over many times, and makes all candidates call within 50 ms.
"""

import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from types import TracebackType
from typing import NamedTuple, Self

from redis import Redis

from bench.growth_limit import measure_limit
from bench.report import Plot, Report, Spread, Table, progress, run
from ops.local.servers import RedisServer

SIZES = (1, 2, 10, 100, 1_000)
"""Numbers of candidates. The columns with `ratio to two` compare a figure with the figure for two candidates."""
STEADY = 20.0
"""Seconds of a steady state: two heartbeats."""
ROUNDS = 20
"""Hand-overs for each number of candidates."""
QUIET = 0.2
"""Seconds between two reads of Redis's counters after a hand-over."""
QUIET_LOOKS = 3
"""Number of consecutive reads with few scripts after which a hand-over counts as complete.

One read is not enough, since the crowd's calls may be late.
"""
LONGEST = 10.0
"""Maximum wait, in seconds, until the calls that follow a hand-over have ended."""
LIMIT = 30.0
"""Limit of the wait for a hand-over, in seconds."""
START_LIMIT = 120.0
"""Limit for the start of a crowd, in seconds."""
FLEET = 100_000
"""Number of tasks of the estimate."""
KEY = "portfolio:growth:leader"
"""Redis key of the lease of `bench.candidates`."""
HEARTBEAT, CALL_LIMIT = 10.0, 2.0
"""Defaults of `HEARTBEAT_INTERVAL` and `REDIS_TIMEOUT`, in seconds."""
CONNECTIONS = 2
"""Connections of one candidate: its calls and its watch."""
MOST_CLIENTS = (("Redis's default `maxclients`", 10_000), ("a node of ElastiCache", 65_000))
"""Limits of the number of connections."""


class Counters(NamedTuple):
    """Redis's counters since its start."""

    at: float
    """Seconds of the monotonic clock."""
    scripts: int
    processor: float
    """Seconds of processor time."""
    memory: int
    """Bytes in use, with the buffers of all connections."""

    @classmethod
    def read(cls, redis: Redis) -> "Counters":
        """Read the counters."""
        stats, cpu, memory = redis.info("commandstats"), redis.info("cpu"), redis.info("memory")
        scripts = sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))
        used = float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])
        return cls(time.monotonic(), scripts, used, int(memory["used_memory"]))


@dataclass(frozen=True)
class Measured:
    """The results for one number of candidates."""

    candidates: int
    scripts: float
    """Scripts a second in a steady state."""
    processor: float
    """Redis's processor time in a steady state, in seconds per second."""
    idle: float
    """Redis's processor time without candidates, in seconds per second."""
    memory: int
    """Bytes of Redis."""
    herd: tuple[float, ...]
    """Scripts after each release, above the steady state; negative if fewer heartbeats than usual fell due."""
    release: tuple[float, ...]
    """Seconds of Redis's processor time for each release, above the steady state."""
    all_call: tuple[float, float]
    """Scripts, and seconds of Redis's processor time, when all candidates call, above the steady state."""
    handed_over: tuple[float, ...]
    """Seconds from the resign of a measured candidate until the next candidate believes that it leads."""
    limit: tuple[float, ...]
    """Seconds from a release to a claim over bare connections; see `bench.growth_limit`."""

    @property
    def processor_each(self) -> float:
        """Redis's processor time for each candidate, above the time without candidates, in microseconds per second."""
        return max(0.0, self.processor - self.idle) / self.candidates * 1e6


class Candidates:
    """A process of candidates; each event goes into a queue with the number of the process."""

    def __init__(self, number: int, count: int, redis_url: str, mode: str, words: "queue.Queue[Word]") -> None:
        command = [sys.executable, "-m", "bench.candidates", str(count), redis_url, f"{mode}-{number}", mode]
        self.measured = mode == "measured"
        self._number = number
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._listener = threading.Thread(target=self._listen, args=(words,))

    def __enter__(self) -> Self:
        self._listener.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        self._listener.join()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()

    def resign(self) -> None:
        """Make the leader resign."""
        assert self._process.stdin is not None
        self._process.stdin.write("resign\n")
        self._process.stdin.flush()

    def _listen(self, words: "queue.Queue[Word]") -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            word, at = line.split()
            words.put(Word(self._number, word, float(at)))


class Word(NamedTuple):
    """An event that a process of candidates reported, and its time."""

    process: int
    word: str
    at: float


class Fleet:
    """Candidates on one Redis, one of which leads."""

    def __init__(self, redis: Redis, redis_url: str, candidates: int, open_: ExitStack) -> None:
        self.redis = redis
        self.candidates = candidates
        self._words: queue.Queue[Word] = queue.Queue()
        self._processes: list[Candidates] = []
        crowd = max(0, candidates - 2)
        groups = [("crowd", crowd // 2), *[("measured", 1)] * min(candidates, 2), ("crowd", crowd - crowd // 2)]
        for number, (mode, count) in enumerate(group for group in groups if group[1]):
            process = Candidates(number, count, redis_url, mode, self._words)
            self._processes.append(open_.enter_context(process))
            if number == 0:
                self._leader = self._next("began", LIMIT).process
            while self._next("ready", START_LIMIT).process != number:
                pass

    def steady(self, seconds: float) -> tuple[Counters, Counters]:
        """Return the counters before and after a steady state."""
        before = Counters.read(self.redis)
        time.sleep(seconds)
        return before, Counters.read(self.redis)

    def hand_over(self, scripts: float, processor: float) -> tuple[float, float, float] | None:
        """Hand the lease over once.

        Returns the number of scripts and Redis's processor time, both above the steady state, and the time until the
        next candidate believes that it leads; times are in seconds. Returns None if a candidate of the crowd resigned,
        since the crowd's processes are too slow to be measured.

        Args:
            scripts: scripts a second in a steady state.
            processor: Redis's processor time a second in a steady state.
        """
        measured = self._processes[self._leader].measured
        before = Counters.read(self.redis)
        self._processes[self._leader].resign()
        events: dict[str, Word] = {}
        while not {"ended", "began"} <= set(events):  # two processes report these events, in any order
            word = self._words.get(timeout=LIMIT)
            events[word.word] = word
        ended, began = events["ended"], events["began"]
        self._leader = began.process
        after = self._settled(scripts, before)
        if not measured:
            return None
        seconds = after.at - before.at
        herd = after.scripts - before.scripts - scripts * seconds
        used = after.processor - before.processor - processor * seconds
        return herd, used, began.at - ended.at

    def all_call(self, scripts: float, processor: float) -> tuple[float, float]:
        """Make all candidates call within 50 ms, as at an expiry.

        Returns the number of scripts and Redis's processor time. The arguments and the units are as for `hand_over`.
        """
        before = Counters.read(self.redis)
        for channel in ("changed", "vacant:changed"):
            self.redis.publish(f"{KEY}:{channel}", "vacant")
        after = self._settled(scripts, before)
        seconds = after.at - before.at
        return (
            max(0.0, after.scripts - before.scripts - scripts * seconds),
            max(0.0, after.processor - before.processor - processor * seconds),
        )

    def _settled(self, scripts: float, before: Counters) -> Counters:
        """Wait until scripts are as rare as in a steady state; returns the counters."""
        last, quiet = Counters.read(self.redis), 0
        while quiet < QUIET_LOOKS and last.at - before.at < LONGEST:
            time.sleep(QUIET)
            now = Counters.read(self.redis)
            rare = now.scripts - last.scripts <= 2 * scripts * (now.at - last.at) + 1
            quiet = quiet + 1 if rare else 0
            last = now
        return last

    def _next(self, word: str, limit: float) -> Word:
        """Return the next event with this word, and drop the events before it."""
        while (event := self._words.get(timeout=limit)).word != word:
            pass
        return event


def measure(sizes: Sequence[int] = SIZES, steady: float = STEADY, rounds: int = ROUNDS) -> Report:
    """Measure each number of candidates in turn, on one Redis."""
    results: list[Measured] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        RedisServer(Path(folder)) as server,
        Redis.from_url(server.url) as redis,
    ):
        empty = Counters.read(redis).memory
        idle = _idle(redis, steady)
        version = str(redis.info("server")["redis_version"])
        with progress(len(sizes) * (rounds + 3), "fleets", "step") as bar:
            for size in sizes:
                redis.flushall()
                results.append(_measure(redis, server.url, size, idle, steady, rounds, bar.update))
    return report(results, empty, version)


def _idle(redis: Redis, seconds: float) -> float:
    """Redis's processor time a second without candidates."""
    before = Counters.read(redis)
    time.sleep(seconds)
    after = Counters.read(redis)
    return (after.processor - before.processor) / (after.at - before.at)


def _measure(
    redis: Redis,
    redis_url: str,
    candidates: int,
    idle: float,
    steady: float,
    rounds: int,
    step: Callable[[], object],
) -> Measured:
    with ExitStack() as open_:
        fleet = Fleet(redis, redis_url, candidates, open_)
        before, after = fleet.steady(steady)
        seconds = after.at - before.at
        scripts = (after.scripts - before.scripts) / seconds
        processor = (after.processor - before.processor) / seconds
        step()
        found: list[tuple[float, float, float]] = []
        for _ in range(rounds if candidates > 1 else 0):
            if (handed_over := fleet.hand_over(scripts, processor)) is not None:
                found.append(handed_over)
            step()
        all_call = fleet.all_call(scripts, processor)  # last: afterwards the fleet's heartbeats coincide
        step()
    herd, release, gaps = zip(*found, strict=True) if found else ((), (), ())
    limit = measure_limit(redis, redis_url, candidates, rounds) if candidates > 1 else ()
    step()
    return Measured(candidates, scripts, processor, idle, after.memory, herd, release, all_call, gaps, limit)


def report(results: Sequence[Measured], empty: int, version: str) -> Report:
    """Return the tables, the plots and the estimate; `empty` is the memory of Redis without candidates, in bytes."""
    two = next((each for each in results if each.candidates == 2 and each.handed_over), None)
    steady = tuple(
        (
            f"{each.candidates:,}",
            f"{each.scripts:.1f}",
            f"{each.scripts / each.candidates * HEARTBEAT:.1f}",
            f"{each.processor:.2%}",
            f"{each.processor_each:.0f}",
            f"{(each.memory - empty) / each.candidates / 1024:.0f}",
        )
        for each in results
    )
    releases = tuple(_release(each, two) for each in results if each.handed_over)
    tables = (
        Table(
            (
                "candidates",
                "scripts a second",
                "scripts of each per heartbeat",
                "Redis, share of a core",
                "Redis, µs/s for each",
                "Redis, KiB for each",
            ),
            steady,
            "A steady state: one candidate leads, and the others follow. The time for each candidate does not include"
            " the time that Redis uses without candidates.",
        ),
        Table(
            (
                "candidates",
                "ratio to two",
                "ratio to the limit",
                "median, ms",
                "p99, ms",
                "worst, ms",
                "rounds",
                "scripts",
                "Redis, ms",
                "all call: scripts",
                "all call: Redis, ms",
                "limit, ms",
                "limit, ratio to two",
            ),
            releases,
            "Hand-overs. `scripts` is the mean number of scripts that follow a release, and `Redis, ms` is Redis's mean"
            " processor time for the scripts and the messages; both leave out the steady state. `all call` is the same"
            " for one event at which all candidates call within 50 ms, as at an expiry. The limit is the median of a"
            " release and a claim over bare connections with the same watches.",
        ),
    )
    handed = [each for each in results if each.handed_over]
    plots = (
        Plot(
            "growth-processor",
            "Redis's processor time for each candidate",
            "candidates",
            "µs a second",
            {"steady state": [(each.candidates, each.processor_each) for each in results]},
            log_x=True,
        ),
        Plot(
            "growth-herd",
            "Scripts that follow an event",
            "candidates",
            "scripts",
            {
                "a release, mean": [(each.candidates, max(1.0, mean(each.herd))) for each in handed],
                "an event at which all call": [(each.candidates, max(1.0, each.all_call[0])) for each in handed],
            },
            log_x=True,
            log_y=True,
        ),
        Plot(
            "growth-handover",
            "Hand-over",
            "candidates",
            "ms",
            {
                "median": [(each.candidates, median(each.handed_over) * 1e3) for each in handed],
                "99th percentile": [(each.candidates, Spread.of(each.handed_over).p99 * 1e3) for each in handed],
                "limit": [(each.candidates, median(each.limit) * 1e3) for each in handed],
            },
            log_x=True,
        ),
    )
    text = f"{TEXT}\n\n{estimate(results, empty)}" if results else TEXT
    command = "python -m bench.growth --json build/bench/growth.json"
    return Report("growth", "Growth", command, text, tables, plots, {"Redis": version})


def _release(found: Measured, two: Measured | None) -> tuple[str, ...]:
    spread, limit = Spread.of([gap * 1e3 for gap in found.handed_over]), median(found.limit)
    ratio = "" if two is None else f"{median(found.handed_over) / median(two.handed_over):.1f}"
    limits = f"{limit * 1e3:.1f}", "" if two is None else f"{limit / median(two.limit):.1f}"
    times = (f"{spread.median:.1f}", f"{spread.p99:.1f}", f"{spread.worst:.1f}", str(spread.rounds))
    used = f"{round(mean(found.herd))}", f"{mean(found.release) * 1e3:.1f}"
    all_call = f"{found.all_call[0]:.0f}", f"{found.all_call[1] * 1e3:.1f}"
    return f"{found.candidates:,}", ratio, f"{median(found.handed_over) / limit:.1f}", *times, *used, *all_call, *limits


TEXT = """\
All candidates want the lease, and one of them leads. They are the production classes with the default settings; only
the failover guard is off, since the Redis has just started. Two measured candidates have a process each. The others
share two processes of the lowest priority, so that they leave most of the two cores to the measured ones. One half
of them connects before the measured ones and the other half after them, because Redis writes its messages in the order
of the connections. A hand-over lasts from the resign of a measured candidate until the next candidate believes that
it leads, without HTTP. In a large fleet a random number decides which candidates keep a direct watch and call at once
after a release. The measured candidates always draw the lowest number, so no round measures a release that is relayed.
Rounds in which a candidate that is not measured gives the lease up are not counted. In a real fleet each candidate has
processors of its own.

After the release, Redis writes a message to each watch before it reads the next call. After the acquire, it does so
again before it replies to the new leader. When each of 1,000 candidates had a direct watch (measured on 2026-11-29),
these messages took 21 ms, and a hand-over took 35 ms, which was 26 times the time of two candidates. So only about
eight candidates have a direct watch. If none of these has a client, one of them relays the release to the others, in
about 0.15 s ([protocol.md](protocol.md), "Many candidates"). The limit in the table is the time for the messages alone:
one script with DEL and PUBLISH, and one SET by a bare connection that waits for the message. The other connections only
read."""


def estimate(results: Sequence[Measured], empty: int) -> str:
    """Return the estimate for `FLEET` tasks, from the cost of each candidate in the largest measured fleet."""
    largest = max(results, key=lambda each: each.candidates)
    each, scripts = largest.processor_each, largest.scripts / largest.candidates
    memory = max(0.0, (largest.memory - empty) / largest.candidates)
    clients = "; ".join(f"{name} allows {limit:,}, so {limit // CONNECTIONS:,} tasks" for name, limit in MOST_CLIENTS)
    limits = [
        (
            MOST_CLIENTS[0][1] / CONNECTIONS,
            f"**Connections.** A task has {CONNECTIONS}, for calls and the watch. {CONNECTIONS} x {FLEET:,} ="
            f" {CONNECTIONS * FLEET:,}. Redis refuses more than `maxclients`: {clients}. No setting of the sidecar"
            " saves a connection. Raise `maxclients`, or give each group of tasks its own leases and Redis.",
        ),
        (
            1e6 / max(each, 1e-3),
            f"**Processor in a steady state.** {each:.0f} µs a second x {FLEET:,} = {each * FLEET / 1e6:.1f} cores, for"
            f" {scripts * FLEET:,.0f} scripts a second. Redis runs scripts on one core, which is enough for"
            f" {1e6 / max(each, 1e-3):,.0f} tasks. `HEARTBEAT_INTERVAL` moves this limit in proportion: with"
            f" `LEASE_TTL=300` and `HEARTBEAT_INTERVAL=100` the fleet needs {each * FLEET / 1e7:.1f} cores. After a"
            " task is lost, its lease then stays taken for up to 300 s.",
        ),
    ]
    if largest.candidates > 1:
        share = max(largest.all_call[1] / largest.candidates, 1e-9)
        limits.append(
            (
                CALL_LIMIT / share,
                "**An event at which all candidates call**: an expiry, or a release that is relayed. Redis spends"
                f" {share * 1e6:.0f} µs for each candidate: {share * 1e6:.0f} µs x {FLEET:,} = {share * FLEET:.1f} s. A"
                f" call ends after `REDIS_TIMEOUT` ({CALL_LIMIT:g} s), so calls may fail in fleets of"
                f" {CALL_LIMIT / share:,.0f} tasks or more. A call that fails is retried, and no promise about safety"
                " depends on its success. `LEASE_TTL` moves this limit, because the default of `REDIS_TIMEOUT` is a"
                " fifteenth of `LEASE_TTL`. A hand-over to a candidate with a direct watch has no such limit.",
            )
        )
    lines = [f"{number}. {text}" for number, (_, text) in enumerate(sorted(limits), start=1)]
    last = (
        f"Redis's memory for the connections is {memory / 1024:.0f} KiB x {FLEET:,} = {memory * FLEET / 2**30:.1f} GiB."
        " The lease itself needs less than 1 KiB."
    )
    first = (
        f"The figures for each task are from {largest.candidates:,} candidates of one lease. The lowest limit is first."
    )
    return "\n\n".join([f"### {FLEET:,} tasks, estimated", first, *lines, last])


if __name__ == "__main__":
    run(measure, sys.argv[1:])
