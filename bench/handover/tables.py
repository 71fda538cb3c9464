"""The report of the hand-overs: ratios first, then milliseconds."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from bench.handover.contenders import LIBRARY, PYTHON_REDIS_LOCK, Contender
from bench.handover.legs import Legs
from bench.report import Plot, Report, Spread, Table

Samples = dict[Contender, list[float]]
"""The seconds of each round."""

MEDIAN_GOAL, P99_GOAL = 1.0, 1.5
"""Goals for the library, as ratios to python-redis-lock."""

LEAST = 0.1
"""Smallest value of a plot, in milliseconds. The axis is logarithmic, and a time after an expiry can be 0:
Redis reports expiries in whole milliseconds."""

TEXT = """\
Three candidates campaign for one lease, and one of them works. The time runs from the line of code after the end of its
work to the first line of code of the next candidate's work, on one clock. All programs have started and wait before the
time starts."""


@dataclass(frozen=True)
class Options:
    """The options of a run."""

    contenders: tuple[Contender, ...]
    rounds: int
    """Number of hand-overs by SIGTERM of each contender; a contender's own number overrides it."""
    kills: int
    """Number of hand-overs by SIGKILL of each contender that replaces a lost leader."""
    ttl: float
    """Duration of the lease in rounds by SIGKILL, in seconds."""


def report(
    options: Options, stops: Samples, kills: Samples, legs: Mapping[str, list[Legs]], versions: Mapping[str, str]
) -> Report:
    """Return the report of all rounds."""
    ordered = {contender: stops[contender] for contender in options.contenders}
    tables, plots = [stop_table(ordered)], [_plot("handover", "Hand-over by SIGTERM", "ms", ordered)]
    if legs:
        tables.append(legs_table(legs))
    if kills:
        tables.append(kill_table(kills, options.ttl))
        plots.append(_plot("handover-kill", "Hand-over by SIGKILL", "ms past the lease's expiry", kills))
    return Report(
        name="handover",
        title="Hand-over",
        command="python -m bench.handover",
        text=TEXT,
        tables=tuple(tables),
        plots=tuple(plots),
        versions=versions,
    )


def stop_table(stops: Samples) -> Table:
    """Return the table of hand-overs by SIGTERM. Its note states whether the goals are met."""
    spreads = {contender.name: Spread.of([1000 * each for each in took]) for contender, took in stops.items()}
    base, library = spreads.get(PYTHON_REDIS_LOCK.name), spreads.get(LIBRARY.name)
    rows = []
    for name, spread in spreads.items():
        ratios = ("-", "-") if base is None else (f"{spread.median / base.median:.2f}", f"{spread.p99 / base.p99:.2f}")
        figures = (f"{each:.2f}" for each in (spread.median, spread.p99, spread.worst))
        rows.append((name, *ratios, *figures, str(spread.rounds)))
    header = ("SIGTERM", "median, ratio", "p99, ratio", "median, ms", "p99, ms", "worst, ms", "rounds")
    note = "" if base is None or library is None else _goal(library, base)
    return Table(header, tuple(rows), note)


def legs_table(legs: Mapping[str, list[Legs]]) -> Table:
    """Return the table of the legs of a hand-over by SIGTERM."""
    rows = []
    for name, found in legs.items():
        parts = [[each.release for each in found], [each.acquire for each in found], [each.start for each in found]]
        rows.append((name, *(f"{1000 * statistics.median(part):.2f}" for part in parts), str(len(found))))
    header = ("legs, median in ms", "work's end to release", "release to acquire", "acquire to work's start", "rounds")
    note = "Redis's MONITOR gives the times of the release and of the acquire; it delays both a little."
    return Table(header, tuple(rows), note)


def kill_table(kills: Samples, ttl: float) -> Table:
    """Return the table of hand-overs by SIGKILL."""
    spreads = {contender: Spread.of([1000 * each for each in took]) for contender, took in kills.items()}
    rows = [
        (contender.name, f"{spread.median:.1f}", f"{spread.worst:.1f}", str(spread.rounds))
        for contender, spread in spreads.items()
    ]
    header = (f"SIGKILL, {ttl:g} s leases", "median, ms past the expiry", "worst, ms past the expiry", "rounds")
    return Table(header, tuple(rows))


def _goal(library: Spread, base: Spread) -> str:
    median, p99 = library.median / base.median, library.p99 / base.p99
    return (
        f"Base of the ratios: {PYTHON_REDIS_LOCK.name}. Goals for the client library: median at most {MEDIAN_GOAL} "
        f"({_met(median, MEDIAN_GOAL)}), 99th percentile at most {P99_GOAL} ({_met(p99, P99_GOAL)})."
    )


def _met(ratio: float, goal: float) -> str:
    return "met" if ratio <= goal else "missed"


def _plot(name: str, title: str, unit: str, samples: Samples) -> Plot:
    series = {
        contender.name: [(float(number), max(1000 * seconds, LEAST)) for number, seconds in enumerate(took)]
        for contender, took in samples.items()
    }
    return Plot(name, title, unit, "share of the rounds", series, "distribution", log_x=True)
