"""The measurements: a task with a given number of portfolios, and a task with too little memory for its streams."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from tqdm import tqdm

from ops.rehearse.isolation import until
from ops.rehearse.journal import Journal
from ops.rehearse.member import Member
from ops.rehearse.network import Pods
from ops.rehearse.programs import RehearsalError
from ops.rehearse.versions import Version
from ops.sizes.stage import Stage, metrics
from ops.sizes.streams import OPENING_AT_ONCE, OpenStreams
from ops.sizes.usage import Usage

AMPLE = 7680
"""Memory limit of the API in the measurements of its use, in MiB."""
SHORT = 128
"""Memory limit of the API that must refuse streams, in MiB: too little for a few hundred streams."""
TICKS = 3
"""Number of ticks in each of two measurements: without streams, and with streams."""
JOBS_WITHIN = 1800.0
"""Limit for the first tick and the daily jobs, in seconds."""
TICK_WITHIN = 180.0
ACCEPTED_WITHIN = 60.0
"""Seconds within which a stream must be accepted after all other streams were closed."""
MOST_STREAMS = 4000

TICKS_WRITTEN = "portfolio_tracker_tick_seconds_count"


@dataclass(frozen=True)
class Load:
    """The use of a container: the largest working set in MiB, and the processor time in percent of a core."""

    memory: float
    processor: float


@dataclass(frozen=True)
class Size:
    """The needs of a task with that many portfolios. Times are in seconds.

    Attributes:
        first_tick: time from the start of the task to its first values.
        tick: median duration of the ticks with streams.
        eod: duration of the job `eod`, which runs while the tracker ticks.
        beginning: what each container uses until the daily jobs are done.
        steady: what each container uses while only ticks run.
        streaming: what each container uses while ticks run and `streams` streams are open.
    """

    portfolios: int
    streams: int
    first_tick: float
    tick: float
    eod: float
    beginning: Mapping[str, Load]
    steady: Mapping[str, Load]
    streaming: Mapping[str, Load]


@dataclass(frozen=True)
class Refusal:
    """The refusal of a stream.

    Attributes:
        streams: number of streams that were open.
        accepted_after: seconds from the closing of these streams until a new stream was accepted.
    """

    streams: int
    accepted_after: float


async def measure_size(
    folder: Path, version: Version, pods: Pods, journal: Journal, portfolios: int, streams: int
) -> Size:
    """Measure a task with that many portfolios and open streams."""
    stage = Stage(folder / str(portfolios), version, pods, journal)
    async with stage.running(portfolios), stage.task(AMPLE) as member, _watched(member) as meter:
        await until(lambda: _ticked(member, 1), JOBS_WITHIN, "the first values are written")
        first_tick = time.time() - member.began
        journal.event(member.label, f"first values {first_tick:.1f} s after its start")
        await until(lambda: _done(stage), JOBS_WITHIN, "the daily jobs are done")
        beginning = meter.lap()
        journal.event(member.label, f"the daily jobs are done, {_described(beginning)}")
        await _ticks(member, TICKS)
        steady = meter.lap()
        journal.event(member.label, f"{TICKS} ticks, {_described(steady)}")
        async with OpenStreams(_base(member), await _portfolios(stage, streams)) as opened:
            await _open(opened, streams)
            meter.lap(keep_peaks=True)
            ticks = await _ticks(member, TICKS)
            streaming = meter.lap()
            journal.event(member.label, f"{TICKS} ticks with {streams:,} streams, {_described(streaming)}")
            if opened.ended or opened.events < 2 * streams:
                raise RehearsalError(f"{opened.ended} of {streams} streams ended, {opened.events} values arrived")
        eod = await stage.query(
            "select extract(epoch from finished_at - started_at)::float8 as seconds, rows_written from job_run "
            "where job = 'eod' order by rows_written desc limit 1"
        )
        if eod is None or eod["rows_written"] != portfolios:
            raise RehearsalError(f"the EOD capture has not written {portfolios} rows: {eod}")
    return Size(portfolios, streams, first_tick, median(ticks), eod["seconds"], beginning, steady, streaming)


async def measure_refusal(folder: Path, version: Version, pods: Pods, journal: Journal) -> Refusal:
    """Open streams on a task with little memory until it refuses one, close them, and wait until it accepts one.

    Raises:
        RehearsalError: the task refused no stream, ended an open one, or accepted no stream again.
    """
    stage = Stage(folder / "refusal", version, pods, journal)
    async with stage.running(1), stage.task(SHORT) as member:
        await until(lambda: _ticked(member, 1), JOBS_WITHIN, "the first values are written")
        portfolio = await _portfolios(stage, 1)
        async with OpenStreams(_base(member), portfolio) as opened:
            refused = None
            while refused is None and len(opened) < MOST_STREAMS:
                refused = await opened.open()
            count = len(opened)
            if refused is None or refused.status != 503 or not refused.retry_after:
                raise RehearsalError(f"with {count} open streams the answer to a new stream is {refused}")
            journal.event(member.label, f"refuses a stream when {count} are open, {await _memory(member)}")
            events = opened.events
            await until(lambda: opened.events >= events + count, TICK_WITHIN, "each open stream has a new value")
            if opened.ended:
                raise RehearsalError(f"{opened.ended} of {count} streams ended while streams were refused")
        closed = time.monotonic()

        async def accepted() -> bool:
            async with OpenStreams(_base(member), portfolio) as again:
                return await again.open() is None

        await until(accepted, ACCEPTED_WITHIN, "a stream is accepted again")
        after = time.monotonic() - closed
        journal.event(member.label, f"accepts a stream again, {await _memory(member)}")
    return Refusal(count, after)


class _Meter:
    """Measures the use of consecutive laps."""

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self._since = time.monotonic()
        self._before: Mapping[str, float] = {}

    def lap(self, *, keep_peaks: bool = False) -> dict[str, Load]:
        """Return the use since the last lap. With `keep_peaks`, the next lap gets the peaks, and this lap has none."""
        seconds, now = self._usage.processor_seconds(), time.monotonic()
        peaks = {} if keep_peaks else self._usage.peaks()
        loads = {
            name: Load(peaks.get(name, 0.0), 100 * (used - self._before.get(name, 0.0)) / (now - self._since))
            for name, used in seconds.items()
        }
        self._before, self._since = seconds, now
        return loads


@asynccontextmanager
async def _watched(member: Member) -> AsyncIterator[_Meter]:
    usage = Usage(lambda: member.pids)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(usage.run())
        yield _Meter(usage)
        running.cancel()


async def _ticked(member: Member, ticks: float) -> bool:
    return (await metrics(member)).get(TICKS_WRITTEN, 0.0) >= ticks


async def _ticks(member: Member, wanted: int) -> list[float]:
    """Return the durations of the next ticks, in seconds."""
    found: list[float] = []
    before = await metrics(member)
    while len(found) < wanted:
        count = before.get(TICKS_WRITTEN, 0.0)
        await until(partial(_ticked, member, count + 1), TICK_WITHIN, "another tick is written")
        now = await metrics(member)
        total = TICKS_WRITTEN.replace("count", "sum")
        found.append((now[total] - before[total]) / (now[TICKS_WRITTEN] - count))
        before = now
    return found


async def _done(stage: Stage) -> bool:
    row = await stage.query("select count(distinct job) = 3 and bool_and(status = 'done') as done from job_run")
    return row is not None and bool(row["done"])


async def _portfolios(stage: Stage, count: int) -> list[str]:
    row = await stage.query("select array(select id::text from portfolio order by id limit $1) as ids", count)
    return list(row["ids"]) if row is not None else []


async def _open(opened: OpenStreams, wanted: int) -> None:
    with tqdm(total=wanted, unit="stream", desc="opening streams", disable=None) as bar:
        while len(opened) < wanted:
            many = min(OPENING_AT_ONCE, wanted - len(opened))
            refused = [each for each in await asyncio.gather(*(opened.open() for _ in range(many))) if each]
            if refused:
                raise RehearsalError(f"a stream was refused with {refused[0].status} when {len(opened)} were open")
            bar.update(many)


async def _memory(member: Member) -> str:
    return f"{(await metrics(member))['portfolio_memory_used_share']:.1%} of its memory in use"


def _base(member: Member) -> str:
    if member.pod is None:
        raise RehearsalError(f"{member.label} has ended")
    return f"http://{member.pod.address}:8080"


def _described(loads: Mapping[str, Load]) -> str:
    return ", ".join(
        f"{name} {load.memory:.0f} MiB {load.processor:.1f} % of a core" for name, load in sorted(loads.items())
    )
