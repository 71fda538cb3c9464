"""The report of all sizes."""

import statistics
from collections.abc import Callable, Sequence

import asyncpg
import numpy as np

from bench.cost import Cost
from bench.report import Plot, Report, Table
from bench.tracker.closing import CAPTURES, CHANGED
from bench.tracker.parts import ENCODING, STAGING, STATEMENTS, VALUATION
from bench.tracker.plain import SAMPLE
from bench.tracker.portfolios import POSITIONS, SYMBOLS
from bench.tracker.rounds import ROUNDS, Round
from bench.tracker.size import Size
from bench.tracker.streams import LISTENERS

GOAL = 1.5
"""Maximum time of a tick, as a multiple of its limit."""

TEXT = f"""\
Each portfolio has {POSITIONS} positions over {SYMBOLS:,} symbols. A tick lasts from the prices to the last commit. Its
limit is the sum of two measurements, which take turns with the ticks: the plain COPY of the same rows into an empty
table like `portfolio_live` (its columns, checks, primary key and half-filled pages), committed, and the valuation alone
in NumPy. A tick also writes intraday points and {SYMBOLS:,} prices, keeps the day's high and low of each
portfolio, and passes the fence. The COPY fills an empty table, but a tick replaces rows that other programs read. So
the last column adds a plain UPDATE to the limit. This UPDATE sets every row to its copy and compares no values."""
SERVICE_REST = "service: prices, protocol and event loop"
POSTGRES_REST = "Postgres: commits, write-ahead log writer and the rest"
PARTS = (VALUATION, ENCODING, SERVICE_REST, STAGING, *STATEMENTS.values(), POSTGRES_REST)


def _seconds(value: float) -> str:
    return f"{value:.2f}"


def _median(found: Sequence[Round], value: Callable[[Round], float]) -> float:
    return statistics.median(map(value, found))


def limit_table(sizes: Sequence[Size]) -> Table:
    """Return the table of ticks and their limit."""
    rows, notes = [], []
    for size in sizes:
        for name, found in (("whole machine", size.rounds.free), ("half a core", size.rounds.half_core)):
            if not found:
                notes.append(f"Half a core was not measured: {size.rounds.no_quota}.")
                continue
            ratio, worst = _median(found, lambda one: one.ratio), max(one.ratio for one in found)
            rows.append(
                (
                    f"{size.portfolios:,} portfolios, {name}",
                    _seconds(_median(found, lambda one: one.tick.wall)),
                    _seconds(max(one.tick.wall for one in found)),
                    _seconds(_median(found, lambda one: one.copy.wall)),
                    _seconds(_median(found, lambda one: one.valuation.wall)),
                    _seconds(_median(found, lambda one: one.update.wall)),
                    f"{ratio:.2f}{'' if ratio <= GOAL else ' (goal missed)'}",
                    f"{worst:.2f}",
                    f"{_median(found, lambda one: one.tick.processor / one.limit.processor):.2f}",
                    f"{_median(found, lambda one: one.ratio_with_update):.2f}",
                )
            )
    times = "tick, s", "worst", "COPY, s", "NumPy, s", "UPDATE, s"
    header = ("", *times, "tick / limit", "worst", "by processor time", "tick / (limit + UPDATE)")
    note = (
        f"Medians. The goal is a tick of at most {GOAL} times the limit. A tick of more than 25,000 portfolios uses "
        "two connections; the COPY and the UPDATE use one each. Other load slows one and two connections unequally, so "
        "compare by processor time. The last column is by processor time. Half a core is a quota of the process "
        "with the tracker, as in a task of 512 units; Postgres has no quota."
    )
    return Table(header, tuple(rows), " ".join([note, *dict.fromkeys(notes)]))


def parts_table(sizes: Sequence[Size]) -> Table:
    """Return the table of the parts of a tick, by processor time."""
    columns = [_parts(size.rounds.free) for size in sizes]
    rows = tuple(
        (part, *(cell for column in columns for cell in (_seconds(column[part]), _share(column[part], column))))
        for part in PARTS
    )
    header = ("part of a tick", *(cell for size in sizes for cell in (f"{size.portfolios:,}: s", "share")))
    return Table(header, rows, f"Processor seconds, the mean of {ROUNDS} ticks.")


def _parts(found: Sequence[Round]) -> dict[str, float]:
    """The mean processor seconds of each part of a tick."""
    mean = {part: statistics.mean(one.parts.get(part, 0.0) for one in found) for part in PARTS}
    for rest, side in ((SERVICE_REST, "service"), (POSTGRES_REST, "postgres")):
        total = statistics.mean(getattr(one.tick, side) for one in found)
        mean[rest] = total - sum(mean[part] for part in PARTS if part.lower().startswith(side) and part != rest)
    return mean


def _share(spent: float, column: dict[str, float]) -> str:
    return f"{spent / sum(column.values()):.0%}"


def steps_table(size: Size) -> Table:
    """Return the table of the steps of `bench.tracker.steps`."""
    rows = tuple((name, _seconds(cost.wall), _seconds(cost.postgres)) for name, cost in size.steps)
    first = size.rounds.first.tick
    rows += (("the first tick of a new database: inserts", _seconds(first.wall), _seconds(first.postgres)),)
    header = (f"{size.portfolios:,} rows, one connection", "elapsed, s", "Postgres, s")
    note = (
        "Each COPY adds one part to the one before it. An update writes a new version of every row: it reads and joins "
        "the old version, compares it with the new one, and logs it. No update touches an index. The two updates "
        "differ in the foreign key on `portfolio`, which Supabase's API needs if a query embeds the live value."
    )
    return Table(header, rows, note)


def work_table(sizes: Sequence[Size]) -> Table:
    """Return the table of loading, ticks and the EOD capture, compared with the plain implementation."""
    rows = []
    for size in sizes:
        tick = sorted((one.tick for one in size.rounds.free), key=lambda cost: cost.wall)[len(size.rounds.free) // 2]
        closing = sorted(size.captures, key=lambda cost: cost.wall)[CAPTURES // 2]
        works = ("loading", "a tick", f"EOD, median of {CAPTURES}")
        for work, ours, plainly in zip(works, (size.loading, tick, closing), size.plain, strict=True):
            rows.append((f"{size.portfolios:,} portfolios: {work}", *_compared(ours, plainly)))
        of_update = (_seconds(seconds) for seconds in (size.update.wall, size.update.service, size.update.postgres))
        rows.append((f"loading {CHANGED:,} changed portfolios again", *of_update, "", "", ""))
        rows.append((f"{LISTENERS:,} listeners served", _seconds(size.listener), "", "", "", "", ""))
    header = ("", "elapsed, s", "service, s", "Postgres, s", "plain, s", "plain / elapsed", "by processor time")
    memory = "; ".join(
        f"{size.portfolios:,} portfolios: at most {size.tick_memory:.0f} MiB with ticks, {size.eod_memory:.0f} MiB "
        f"with EOD; each EOD {', '.join(f'{cost.wall:.1f}' for cost in size.captures)} s; load {size.load:.1f}"
        for size in sizes
    )
    note = (
        "Service and Postgres: processor seconds. Plain: a Python loop with `decimal`, and executemany, on a sample of "
        f"{SAMPLE:,} portfolios, scaled up. Listeners: from the commit to the last listener, over HTTP. {memory}."
    )
    return Table(header, tuple(rows), note)


def _compared(ours: Cost, plainly: Cost) -> tuple[str, ...]:
    own = map(_seconds, (ours.wall, ours.service, ours.postgres))
    ratios = plainly.wall / ours.wall, plainly.processor / ours.processor
    return (*own, f"{plainly.wall:.1f}", *(f"{ratio:.1f}" for ratio in ratios))


def report(sizes: Sequence[Size]) -> Report:
    """Return the report of at least one size."""
    points = {
        "tick": [(size.portfolios, _median(size.rounds.free, lambda one: one.tick.wall)) for size in sizes],
        "COPY and NumPy": [(size.portfolios, _median(size.rounds.free, lambda one: one.limit.wall)) for size in sizes],
    }
    plot = Plot("tracker", "A tick and its limit", "portfolios", "seconds", points, log_x=True, log_y=True)
    return Report(
        name="tracker",
        title="The tracker and its limit",
        command=f"make bench-tracker PORTFOLIOS='{' '.join(str(size.portfolios) for size in sizes)}'",
        text=TEXT,
        tables=(limit_table(sizes), parts_table(sizes), steps_table(sizes[0]), work_table(sizes)),
        plots=(plot,) if len(sizes) > 1 else (),
        versions={"Postgres": sizes[0].postgres, "asyncpg": asyncpg.__version__, "NumPy": np.__version__},
    )
