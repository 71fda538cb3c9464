"""The rule that distinguishes a flat series from a leak. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WARM_UP = 0.25
"""Share of the duration that counts as warm-up and is not judged: caches fill and allocators grow."""
MIN_SAMPLES = 8
"""Minimum number of samples of a judged part."""
PART = 5
"""Number of pieces of the judged part: the first and the last piece are compared."""

Point = tuple[float, float]
"""A sample: the time in seconds, and the value."""


@dataclass(frozen=True)
class Measure:
    """A quantity of a process, and the limit of its growth in the judged part of a run.

    The limit is the maximum of `least`, in the unit, and `share` of the median.
    """

    name: str
    unit: str
    least: float
    share: float


MEMORY = Measure("memory", "MiB", 3.0, 0.03)
DESCRIPTORS = Measure("descriptors", "open", 6.0, 0.1)
TASKS = Measure("tasks", "unfinished", 8.0, 0.1)
THREADS = Measure("threads", "running", 3.0, 0.0)
MEASURES = MEMORY, DESCRIPTORS, TASKS, THREADS


@dataclass(frozen=True)
class Growth:
    """The growth of a series in its judged part, and its limit, in the unit of the series."""

    start: float
    """Median of the first fifth of the judged part."""
    grown: float
    limit: float

    @property
    def flat(self) -> bool:
        """True if the series has not grown by more than its limit."""
        return self.grown <= self.limit


def judged(points: Sequence[Point]) -> Sequence[Point]:
    """Return the points after the warm-up; `points` are in order of time."""
    if not points:
        return points
    began, ended = points[0][0], points[-1][0]
    return [point for point in points if point[0] >= began + WARM_UP * (ended - began)]


def growth(points: Sequence[Point], measure: Measure) -> Growth:
    """Return the growth of a series.

    The growth is the maximum of two estimates that a few outliers do not move. The Theil-Sen slope (the median of the
    slopes between all pairs of points) times the duration finds a slow and steady leak. The difference between the
    medians of the last and of the first fifth finds a leak that begins late.

    Raises:
        ValueError: the series is too short.
    """
    part = judged(points)
    if len(part) < MIN_SAMPLES:
        raise ValueError(f"{len(part)} samples after the warm-up are fewer than {MIN_SAMPLES}")
    at, values = np.array(part, dtype=float).T
    first, second = np.triu_indices(len(part), 1)
    slopes = (values[second] - values[first]) / (at[second] - at[first])
    steady = float(np.median(slopes)) * float(at[-1] - at[0])
    fifth = max(1, len(part) // PART)
    start, end = float(np.median(values[:fifth])), float(np.median(values[-fifth:]))
    limit = max(measure.least, measure.share * float(np.median(values)))
    return Growth(start, max(steady, end - start), limit)


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """Return at most `most` points for a plot: the last time and the maximum value of each group of neighbours."""
    size = -(-len(points) // most) if points else 1
    groups = [points[at : at + size] for at in range(0, len(points), size)]
    return [(group[-1][0], max(value for _, value in group)) for group in groups]
