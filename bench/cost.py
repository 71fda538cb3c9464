"""The cost of a piece of work: elapsed time, and processor time in this process and in Postgres."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil


@dataclass
class Cost:
    """Elapsed seconds and processor seconds."""

    wall: float = 0.0
    service: float = 0.0
    postgres: float = 0.0

    def scaled(self, factor: float) -> "Cost":
        """Return the cost multiplied by the factor."""
        return Cost(self.wall * factor, self.service * factor, self.postgres * factor)

    @property
    def processor(self) -> float:
        """Processor seconds of all processes."""
        return self.service + self.postgres

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.wall + other.wall, self.service + other.service, self.postgres + other.postgres)


@dataclass
class Machine:
    """The processes whose cost is counted."""

    postgres: psutil.Process
    ended: dict[int, float] = field(default_factory=dict)

    def processor_seconds(self) -> tuple[float, float]:
        """Return the processor seconds so far of this process, and of all Postgres processes together."""
        for process in self.postgres.children():
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            self.ended[process.pid] = times.user + times.system
        return time.process_time(), sum(self.ended.values())

    @contextmanager
    def cost(self) -> Iterator[Cost]:
        """Measure the cost of the block."""
        cost = Cost()
        service, postgres = self.processor_seconds()
        began = time.perf_counter()
        yield cost
        cost.wall = time.perf_counter() - began
        after = self.processor_seconds()
        cost.service, cost.postgres = after[0] - service, after[1] - postgres
