"""Write `docs/benchmarks.md` and its plots from the reports in `build/bench`: `python -m bench.docs`.

The text of the document is in `bench/benchmarks.md`. Below each line `<!-- report: NAME -->`, the document has the
tables and the plots of `build/bench/NAME.json`, which the benchmark NAME writes. If this file does not exist, the
document keeps its old section. Each section names its machine and its time.
"""

import re
import sys
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from bench.report import Plot, Report

TEMPLATE = Path("bench/benchmarks.md")
RESULTS = Path("build/bench")
DOCUMENT = Path("docs/benchmarks.md")
PICTURES = Path("docs/benchmarks")
MARK = re.compile(r"^<!-- report: ([a-z_]+) -->$", re.MULTILINE)
SECTION = re.compile(r"^<!-- report: ([a-z_]+) -->\n(.+?)\n<!-- end of the report -->$", re.MULTILINE | re.DOTALL)
"""A report's section in the document."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666", "#000000")
STYLES = ("-", "--")
"""Line styles; the second one is for series after the last colour."""


def draw(plot: Plot, file: Path) -> None:
    """Draw the plot as an SVG file. The same plot gives the same bytes."""
    with rc_context({"svg.hashsalt": plot.name, "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 4), layout="constrained")
        axis = figure.subplots()
        looks = [(style, colour) for style in STYLES for colour in COLOURS]
        for (name, points), (style, colour) in zip(plot.series.items(), looks, strict=False):
            if plot.kind == "distribution":
                axis.ecdf([y for _, y in points], label=name, color=colour, linestyle=style)
            else:
                across, up = [x for x, _ in points], [y for _, y in points]
                axis.plot(across, up, label=name, color=colour, linestyle=style, marker=".")
        axis.set(title=plot.title, xlabel=plot.x, ylabel=plot.y)
        if plot.log_x:
            axis.set_xscale("log")
        if plot.log_y:
            axis.set_yscale("log")
        axis.grid(visible=True, alpha=0.3)
        figure.legend(loc="outside right upper", fontsize="small")
        figure.savefig(file, metadata={"Date": None})


def section(report: Report) -> str:
    """Return the report in Markdown; the plots are files in the document's folder."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    parts = [f"## {report.title}", report.text]
    for table in report.tables:
        parts += [part for part in (table.markdown(), table.note) if part]
    parts += [f"![{plot.title}]({PICTURES.name}/{plot.name}.svg)" for plot in report.plots]
    measured = f"`{report.command}`, {report.at}. {report.machine}"
    parts.append(f"{measured}. {versions}." if versions else f"{measured}.")
    return "\n\n".join(parts)


def main() -> None:
    """Write the document and its plots."""
    text = TEMPLATE.read_text(encoding="utf-8")
    sections = dict(SECTION.findall(DOCUMENT.read_text(encoding="utf-8"))) if DOCUMENT.exists() else {}
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name in MARK.findall(text):
        file = RESULTS / f"{name}.json"
        if file.exists():
            report = Report.from_json(file.read_text(encoding="utf-8"))
            sections[name] = section(report)
            for plot in report.plots:
                draw(plot, PICTURES / f"{plot.name}.svg")
        elif name not in sections:
            print(f"{file} does not exist: run `python -m bench.{name} --json {file}`", file=sys.stderr)
            raise SystemExit(2)
        print(f"{name}: {file if file.exists() else f'{file} does not exist, so the document keeps its section'}")
    whole = MARK.sub(lambda mark: f"{mark[0]}\n{sections[mark[1]]}\n<!-- end of the report -->", text)
    DOCUMENT.write_text(whole, encoding="utf-8")
    print(f"{DOCUMENT} is written")


if __name__ == "__main__":
    main()
