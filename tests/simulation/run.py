"""The runner of worlds on all cores: the same seed gives the same worlds on any number of cores."""

import gc
import hashlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import EnumType
from random import Random

from sidecar.protocol import Kind, Outcome, Reason, State
from tests.simulation.command_line import workers
from tests.simulation.oracles import Violation
from tests.simulation.scenario import Scenario, draw
from tests.simulation.world import STORY, World

DEFAULT_TTL = 30.0
"""Longest ttl, in seconds, of worlds whose delays are reported: with a longer ttl, clock drift lengthens the delays."""
CHUNK = 4
"""The number of worlds that a process takes at a time."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The worlds to simulate: those of `seed`, optionally with a fixed mix of faults, ttl or pace."""

    seed: str
    mix: str | None = None
    ttl: float | None = None
    pace: float | None = None

    def scenario(self, index: int) -> tuple[Scenario, Random]:
        """The scenario of a world, and the generator of its other random numbers."""
        random = Random(f"{self.seed}/{index}")
        return draw(random, mix=self.mix, ttl=self.ttl, pace=self.pace), random


@dataclass(slots=True)
class Result:
    """The result of one world. The ttl and the delays are in seconds."""

    index: int
    hours: float
    ttl: float
    mix: str
    watched: bool
    rounds: int
    terms: int
    writes: int
    refused: int
    faults: Counter[str]
    hand_over: list[float]
    takeover: list[float]
    silence: list[float]
    law: str | None
    text: str

    def fingerprint(self) -> bytes:
        """A hash of the counts, the delays and the violated law, to compare two runs."""
        shown = f"{self.index} {self.hours!r} {self.rounds} {self.terms} {self.writes} {self.refused} {self.law}"
        shown += f" {sorted(self.faults.items())} {self.hand_over} {self.takeover} {self.silence}"
        return hashlib.blake2b(shown.encode(), digest_size=8).digest()


@dataclass(slots=True)
class Total:
    """The results of all worlds together."""

    hours: float = 0.0
    lifetimes: float = 0.0
    worlds: int = 0
    rounds: int = 0
    terms: int = 0
    writes: int = 0
    refused: int = 0
    hours_of: dict[float, float] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    hand_over: list[float] = field(default_factory=list)
    unwatched: list[float] = field(default_factory=list)
    takeover: list[float] = field(default_factory=list)
    silence: list[float] = field(default_factory=list)
    violations: list[Result] = field(default_factory=list)
    digest: str = ""

    def add(self, result: Result) -> None:
        self.hours += result.hours
        self.lifetimes += result.hours * 3600 / result.ttl
        self.worlds += 1
        self.rounds += result.rounds
        self.terms += result.terms
        self.writes += result.writes
        self.refused += result.refused
        self.hours_of[result.ttl] = self.hours_of.get(result.ttl, 0.0) + result.hours
        self.faults.update(result.faults)
        if result.ttl <= DEFAULT_TTL:
            (self.hand_over if result.watched else self.unwatched).extend(result.hand_over)
            if result.watched:
                self.takeover.extend(result.takeover)
                self.silence.extend(result.silence)
        if result.law is not None:
            self.violations.append(result)
        self.digest = hashlib.blake2b(self.digest.encode() + result.fingerprint(), digest_size=8).hexdigest()


def run_world(choice: Choice, index: int) -> Result:
    """Run one world to its end or to its first violation."""
    scenario, random = choice.scenario(index)
    world = World(scenario, random)
    violation = world.run()
    oracle = world.oracle
    return Result(
        index,
        min(world.now, scenario.length) / 3600,
        scenario.timings.ttl,
        scenario.mix,
        scenario.watch != "off",
        world.rounds,
        oracle.terms,
        oracle.writes,
        oracle.refused,
        world.counts,
        oracle.hand_over,
        oracle.takeover,
        oracle.silence,
        violation.law if violation else None,
        str(violation or ""),
    )


def story(choice: Choice, index: int) -> tuple[Violation | None, list[str]]:
    """Run a world again; returns its violation, if there is one, and its last events."""
    scenario, random = choice.scenario(index)
    world = World(scenario, random, trace=True)
    violation = world.run()
    return violation, list(world.trace or ())[-STORY:]


def whole_story(choice: Choice, index: int) -> str:
    """Return every recorded event of a world, one per line."""
    scenario, random = choice.scenario(index)
    world = World(scenario, random, trace=True)
    world.run()
    return "\n".join(world.trace or ())


def plan(choice: Choice, hours: float) -> int:
    """The number of worlds that make up this number of hours."""
    worlds, planned = 0, 0.0
    while planned < hours:
        planned += choice.scenario(worlds)[0].length / 3600
        worlds += 1
    return worlds


def run(
    choice: Choice, hours: float, *, processes: int | None = None, progress: Callable[[Total, int], None] | None = None
) -> Total:
    """Simulate a number of hours on a number of processes (default: one per core)."""
    total, worlds = Total(), plan(choice, hours)
    for result in _results(choice, worlds, processes or len(os.sched_getaffinity(0))):
        total.add(result)
        if progress is not None:
            progress(total, worlds)
    return total


def _results(choice: Choice, worlds: int, processes: int) -> Iterator[Result]:
    if processes == 1:
        yield from (run_world(choice, index) for index in range(worlds))
        return
    with workers(processes, _prepare, choice) as pool:
        yield from pool.imap(_run_prepared, range(worlds), chunksize=CHUNK)
        pool.close()
        pool.join()  # no `terminate`: the caller may have blocked SIGTERM, and the processes end by themselves


_choice = Choice("0")


def _prepare(choice: Choice) -> None:
    global _choice
    _choice = choice
    gc.freeze()
    gc.disable()  # `_run_prepared` collects the garbage instead
    if sys.version_info < (3, 12):
        _make_attributes()


def _make_attributes() -> None:
    """Keep the members of the protocol's enumerations as plain attributes, as Python 3.12 does.

    Python 3.11 finds a member through a property and a hook for unknown names, which took an eighth of the simulator's
    time.
    """
    for each in (Kind, Outcome, Reason, State):
        for member in each:
            type.__setattr__(each, member.name, member)
    delattr(EnumType, "__getattr__")


def _run_prepared(index: int) -> Result:
    result = run_world(_choice, index)
    if index % CHUNK == 0:
        gc.collect()
    return result


class Progress:
    """The progress: one line that is rewritten on a terminal, or at most ten lines in any other output."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self._printed_at = self.began
        self._tenths = 0

    def __call__(self, total: Total, worlds: int) -> None:
        now, share = time.monotonic(), total.worlds / worlds
        line = (
            f"{share:4.0%}  {total.hours:,.0f} h, {total.hours / (now - self.began):,.0f} h/s, {total.terms:,} terms,"
            f" {len(total.violations)} violations"
        )
        if sys.stderr.isatty():
            if now - self._printed_at > 0.5 or total.worlds == worlds:
                self._printed_at = now
                end = "\n" if total.worlds == worlds else ""
                sys.stderr.write(f"\r{line}\x1b[K{end}")
                sys.stderr.flush()
        elif int(share * 10) > self._tenths:
            self._tenths = int(share * 10)
            sys.stderr.write(line + "\n")
