"""The result of a benchmark: tables for the terminal, and the same tables and plots for `docs/benchmarks.md`.

Each benchmark measures its contenders in turns in one run and returns a `Report`. `run` is the command line of a
benchmark. It prints the report, and with `--json FILE` it also writes the file from which `bench.docs` makes the
document.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from runtime.command_line import prepare_streams


@dataclass(frozen=True)
class Spread:
    """The spread of samples, in the unit of the samples."""

    median: float
    p99: float
    worst: float
    rounds: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Spread":
        """Return the spread of at least one sample; the 99th percentile is the nearest rank."""
        ordered = sorted(samples)
        rank = -(-99 * len(ordered) // 100) - 1
        return cls(statistics.median(ordered), ordered[rank], ordered[-1], len(ordered))


@dataclass(frozen=True)
class Table:
    """Rows of texts below a header. The first column is aligned to the left, the others to the right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    """A sentence below the table, in Markdown."""

    def text(self) -> str:
        """Return the table for a terminal."""
        lines = [self.header, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.header))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )

    def markdown(self) -> str:
        """Return the table in Markdown."""
        marks = ("---", *("--:" for _ in self.header[1:]))
        return "\n".join(f"| {' | '.join(line)} |" for line in (self.header, marks, *self.rows))


@dataclass(frozen=True)
class Plot:
    """A plot of points (x, y) for each series: lines, or the cumulative distribution of the samples in y."""

    name: str
    """Name of the file without its suffix: letters, digits and hyphens."""
    title: str
    x: str
    """Label of the x axis, with the unit. For a distribution the x axis has the samples."""
    y: str
    series: Mapping[str, Sequence[tuple[float, float]]]
    kind: Literal["lines", "distribution"] = "lines"
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Report:
    """The result of one benchmark."""

    name: str
    """Name of the benchmark's module in `bench`, and of its files."""
    title: str
    command: str
    """Command that repeats the benchmark."""
    text: str
    """Description of the comparison, in Markdown."""
    tables: tuple[Table, ...]
    plots: tuple[Plot, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of servers and libraries."""
    machine: str = ""
    at: str = ""

    def terminal(self) -> str:
        """Return the report for a terminal."""
        parts = [self.title, *(part for table in self.tables for part in (table.text(), table.note) if part)]
        return "\n\n".join(parts)

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """Return the report that `to_json` wrote."""
        found: dict[str, Any] = json.loads(text)
        found["tables"] = tuple(
            Table(tuple(table["header"]), tuple(map(tuple, table["rows"])), table["note"]) for table in found["tables"]
        )
        found["plots"] = tuple(Plot(**plot) for plot in found["plots"])
        return cls(**found)


def machine() -> str:
    """Return the number and kind of processors, the load, the kernel and Python's version."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} x {model}, load {load:.1f}, Linux {platform.release()}, Python {platform.python_version()}"
    )


def progress(total: float, what: str, unit: str) -> "tqdm[Any]":
    """Return a progress bar on standard error.

    If standard error is a file, the bar writes at most one line per ten seconds.
    """
    piped = not sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=what,
        unit=unit,
        leave=False,
        ascii=piped,
        ncols=80 if piped else None,
        mininterval=10 if piped else 0.1,
    )


def run(measure: Callable[[], Report], arguments: Sequence[str], json_file: Path | None = None) -> None:
    """Measure, print the report, and write its JSON into the file of `--json` or into `json_file`.

    A benchmark with its own arguments parses them first and passes the rest.
    """
    parser = argparse.ArgumentParser(description="Measure and print a table.")
    parser.add_argument("--json", type=Path, default=json_file, metavar="FILE", help="also write the report as JSON")
    options = parser.parse_args(arguments)
    prepare_streams()
    found = dataclasses.replace(measure(), machine=machine(), at=datetime.now(UTC).isoformat(timespec="minutes"))
    print(found.terminal())
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(found.to_json(), encoding="utf-8")
