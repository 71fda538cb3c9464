"""One soak: the load on a fleet for some minutes, and the rules that it must keep."""

import asyncio
import random
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.report import progress
from bench.soak.flat import MEASURES, TASKS, Growth, Measure, growth
from bench.soak.fleet import LABELS, RESTARTED, SETTINGS, Fleet
from bench.soak.handovers import EVERY as HAND_OVERS_EVERY
from bench.soak.handovers import HandOvers, Histories, epoch_ms, histories
from bench.soak.leads import gaps, lost_in_histories, lost_in_logs
from bench.soak.logs import MAX_LINES, Line, alarming, ended_terms, per_hand_over, read_log
from bench.soak.planted import LEAD, PLANTS
from bench.soak.samples import METRICS, REDIS, Life, Sampler
from bench.soak.visitors import Visitors, Visits
from runtime.clock import elapsed

LED_WITHIN = 60.0
"""Limit for the first leaders, in seconds: a new Redis is guarded for one ttl."""
EXPECTED = "AUTH=off", "PRICE_SOURCE=simulated"
"""The beginnings of the warnings that the soak's settings cause at the start of an API."""
SHOWN = 5
"""Limit of the lines for one rule."""


@dataclass
class Record:
    """What a soak found. `broken` has one line for each broken rule."""

    minutes: float
    lives: list[Life] = field(default_factory=list)
    growths: dict[tuple[str, Measure], Growth] = field(default_factory=dict)
    """The growth of each process that lived for the whole run, by its name and measure."""
    hand_overs: int = 0
    renewals: float = 0.0
    gaps: list[float] = field(default_factory=list)
    """Milliseconds from a release to the next acquire."""
    restarts: int = 0
    standstills: int = 0
    lines: float = 0.0
    """Log lines of all containers for each hand-over."""
    visits: Visits = field(default_factory=Visits)
    broken: list[str] = field(default_factory=list)


async def soak(folder: Path, minutes: float, plants: Sequence[str] = ()) -> Record:
    """Run a soak with data and logs under `folder`, which must be empty.

    Args:
        folder: the folder.
        minutes: the duration, without the start and the end.
        plants: faults of `bench.soak.planted`, and `lead`, which deletes the keys of leases.
    """
    fleet = Fleet(folder, [plant for plant in plants if plant in PLANTS])
    record = Record(minutes)
    async with fleet.running(), histories(fleet) as history:
        if not all([await fleet.steady(label) for label in LABELS]) or not await _led(history):
            record.broken.append("the tasks did not become healthy, or a lease had no leader, at the start")
            return record
        began_at = epoch_ms()
        sampler, hand_overs = Sampler(fleet, elapsed()), HandOvers(fleet)
        works: list[Coroutine[None, None, object]] = [
            sampler.run(),
            history.run(),
            hand_overs.restart_now_and_then(),
            hand_overs.watch_the_machine(),
        ]
        works += [Visitors(fleet, label, record.visits, random.Random(label)).run() for label in LABELS]
        if LEAD in plants:
            works.append(history.delete_keys())
        await _load(60 * minutes, works, hand_overs, record.visits)
        await history.try_to_read()
        ended_at = epoch_ms()
    lines = [line for path in fleet.log_files() for line in read_log(path)]
    lines = [line for line in lines if began_at <= line.at <= ended_at or not line.at]
    _judge(record, sampler, hand_overs, history, lines)
    return record


async def _led(history: Histories) -> bool:
    """Wait until each lease has had a leader; returns False if that takes too long."""
    deadline = elapsed() + LED_WITHIN
    while not all(history.entries.values()):
        if elapsed() > deadline:
            return False
        await asyncio.sleep(0.1)
        await history.try_to_read()
    return True


async def _load(
    seconds: float, works: Sequence[Coroutine[None, None, object]], hand_overs: HandOvers, visits: Visits
) -> None:
    """Run the works and move the leases for `seconds`, with a progress bar."""
    async with asyncio.TaskGroup() as group:
        beside = [group.create_task(work) for work in works]
        moving = group.create_task(hand_overs.step_down_each_second())
        with progress(seconds, "soak", "s") as bar:
            bar.bar_format = "{desc}: {percentage:3.0f}% |{bar}| {n:.0f} of {total:.0f} s{postfix}"
            ends = elapsed() + seconds
            while (left := ends - elapsed()) > 0:
                await asyncio.sleep(min(1.0, left))
                bar.set_postfix({"hand-overs": hand_overs.asked, "streams": visits.streams}, refresh=False)
                bar.update(min(1.0, left))
        hand_overs.stopping.set()
        await moving
        for work in beside:
            work.cancel()


def _judge(record: Record, sampler: Sampler, hand_overs: HandOvers, history: Histories, lines: list[Line]) -> None:
    causes = hand_overs.causes
    record.lives = sampler.lives
    record.hand_overs = sum(len(gaps(entries)) for entries in history.entries.values())
    record.gaps = [gap for entries in history.entries.values() for gap in gaps(entries)]
    record.restarts, record.standstills = len(causes.stopped), len(causes.standstills)
    record.lines = per_hand_over(lines, record.hand_overs)

    def away(label: str, at: float) -> bool:
        restarts = hand_overs.restarts if label == RESTARTED else []
        return causes.stood_still(at) or any(began <= at <= ended for began, ended in restarts)

    record.broken += _growing(record)
    record.broken += _some(lost_in_histories(history.entries, causes))
    record.broken += _some(lost_in_logs(ended_terms(lines), causes))
    record.broken += _some([f"a hand-over failed: {problem}" for problem in hand_overs.problems])
    record.broken += _some([f"a history cannot be read: {problem}" for problem in history.problems])
    loud = alarming(lines, lambda line: line.message.startswith(EXPECTED) or causes.stood_still(line.at))
    record.broken += _some([f"the log is not quiet: {line}" for line in loud])
    if record.lines > MAX_LINES:
        record.broken.append(f"the log is not quiet: {record.lines:.1f} lines for each hand-over, above {MAX_LINES:g}")
    failed = [each for each in record.visits.failures if not away(each.label, each.at)]
    record.broken += _some([f"a request to {each.label} failed: {each.text}" for each in failed])
    record.renewals = sum(life.renewals for life in record.lives)
    for what, number, most in (
        ("hand-overs", record.hand_overs, 60 * record.minutes / HAND_OVERS_EVERY),
        (
            "renewals",
            record.renewals,
            60 * record.minutes * len(history.entries) / float(SETTINGS["HEARTBEAT_INTERVAL"]),
        ),
    ):
        if number < most / 2:
            record.broken.append(f"{number:.0f} {what} are fewer than half of {most:.0f}: the load was too small")


def _growing(record: Record) -> list[str]:
    """Judge Redis and each process of the tasks that do not restart: one life, and flat measures."""
    names = [REDIS, *(f"{label} {container}" for label in LABELS if label != RESTARTED for container in METRICS)]
    broken: list[str] = []
    for name in names:
        lives = [life for life in record.lives if life.name == name]
        if len(lives) != 1:
            broken.append(f"{name}: {len(lives)} processes in place of one; it ended during the run")
            continue
        for measure in MEASURES:
            if name == REDIS and measure is TASKS:
                continue
            try:
                found = record.growths[name, measure] = growth(lives[0].points[measure], measure)
            except ValueError as error:
                broken.append(f"{name}: {measure.name} cannot be judged: {error}")
                continue
            if not found.flat:
                broken.append(
                    f"{name}: {measure.name} grew by {found.grown:.1f} from {found.start:.1f} {measure.unit},"
                    f" at most {found.limit:.1f} is allowed"
                )
    return broken


def _some(lines: list[str]) -> list[str]:
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], f"... and {more} more of this kind"] if more > 0 else lines
