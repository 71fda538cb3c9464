"""Ticks of the tracker in one term, each followed by the measurement of its limit."""

import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from prometheus_client import CollectorRegistry

from bench.cost import Cost, Machine
from bench.report import progress
from bench.tracker.limit import Limit
from bench.tracker.parts import observed
from bench.tracker.quota import NoQuotaError, half_a_core
from bench.tracker.stand_ins import OpenStore, Prices, Term
from service.market.calendar import AroundTheClockCalendar
from service.work.metrics import WorkMetrics
from service.work.tracker import Tracker

ROUNDS, HALF_CORE_ROUNDS = 5, 3


@dataclass(frozen=True)
class Round:
    """One tick (from the prices to the commit), its limit, and the plain UPDATE."""

    tick: Cost
    copy: Cost
    update: Cost
    valuation: Cost
    parts: Mapping[str, float]
    """Processor seconds of the tick's parts."""

    @property
    def limit(self) -> Cost:
        """The COPY and the valuation together."""
        return self.copy + self.valuation

    @property
    def ratio(self) -> float:
        """Elapsed time of the tick, divided by the limit."""
        return self.tick.wall / self.limit.wall

    @property
    def ratio_with_update(self) -> float:
        """Processor time of the tick as a multiple of the limit and the UPDATE together."""
        return self.tick.processor / (self.limit + self.update).processor


@dataclass
class Rounds:
    """The rounds of one term."""

    first: Round
    """The first tick, which inserts every row."""
    free: list[Round] = field(default_factory=list)
    half_core: list[Round] = field(default_factory=list)
    no_quota: str = ""
    """The reason why this process could not be limited to half a core; empty if it was limited."""


class _EnoughError(Exception):
    """The rounds are complete."""


async def rounds(store: OpenStore, limit: Limit, machine: Machine) -> Rounds:
    """Run a term of the tracker; the next tick comes as soon as the limit is measured."""
    prices, found, ahead = Prices(machine), list[Round](), timedelta()
    no_quota = ""

    def now() -> datetime:
        return datetime.now(UTC) + ahead

    with observed() as parts, ExitStack() as half_core, progress(1 + ROUNDS + HALF_CORE_ROUNDS, "ticks", "tick") as bar:

        async def sleep(seconds: float) -> None:
            nonlocal ahead, no_quota
            wall = time.perf_counter() - prices.answered
            service, postgres = machine.processor_seconds()
            tick = Cost(wall, service - prices.before[0], postgres - prices.before[1])
            seen = dict(parts)
            if store.book is None:
                raise RuntimeError("no positions are loaded")
            copied = await limit.copy()
            updated = await limit.update()
            valued = limit.value(store.book, await Prices().latest(store.book.held()))
            found.append(Round(tick, copied, updated, valued, seen))
            bar.update()
            if len(found) == 1 + ROUNDS:
                try:
                    half_core.enter_context(half_a_core())
                except NoQuotaError as error:
                    no_quota = str(error)
                    raise _EnoughError from error
            if len(found) == 1 + ROUNDS + HALF_CORE_ROUNDS:
                raise _EnoughError
            ahead += timedelta(seconds=seconds)  # the next tick comes at once
            parts.clear()

        calendar, metrics = AroundTheClockCalendar(), WorkMetrics(CollectorRegistry())
        tracker = Tracker(store, prices, calendar, metrics, interval=30.0, now=now, sleep=sleep)
        with suppress(_EnoughError):
            await tracker.run(Term("background_services"))
    return Rounds(found[0], found[1 : 1 + ROUNDS], found[1 + ROUNDS :], no_quota)
