"""The time line of a rehearsal: tasks, leaders, requests, streams and events."""

from math import ceil, inf
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ops.rehearse.leaders import LEASES
from ops.rehearse.measure import touches
from ops.rehearse.play import Record

ROW_SECONDS = 130.0
"""Approximate time that one row of panels shows, in seconds."""

LETTER = 0.0044
"""Width of a letter in an event's name, as a fraction of a panel's width."""

VERSIONS = {"old": "#b9a37e", "today": "#b8cbe0", "next": "#c5dfb9", "broken": "#e3b6b1", "silent": "#d9b8dd"}
LEADS = dict(zip(LEASES, ("#1f4e8c", "#c2570c"), strict=True))
LANE = dict(zip(LEASES, (0.16, -0.16), strict=True))
BAD = "#c0182b"
EXCUSED = "#c9c4c4"


def draw(record: Record, path: Path) -> None:
    """Write the picture in the format of the file's extension."""
    length = record.ended - record.began
    rows = max(1, ceil(length / ROW_SECONDS))
    step = length / rows
    tasks = [_tasks_between(record, record.began + row * step, record.began + (row + 1) * step) for row in range(rows)]
    heights = [height for members in tasks for height in (0.32 * max(len(members), 2), 1.0)]
    figure, axes = plt.subplots(
        2 * rows,
        1,
        figsize=(16, sum(heights) + 0.9 * rows + 1.2),
        gridspec_kw={"height_ratios": heights},
        squeeze=False,
    )
    for row in range(rows):
        began = record.began + row * step
        _tasks(axes[2 * row][0], record, began, began + step, tasks[row])
        _load(axes[2 * row + 1][0], record, began, began + step)
    axes[-1][0].set_xlabel("seconds since the first event")
    figure.legend(handles=_legend(record), loc="upper center", ncol=6, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.8 / figure.get_figheight()))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _tasks_between(record: Record, began: float, ended: float) -> list[int]:
    return [
        number for number, member in enumerate(record.members) if member.began < ended and (member.ended or inf) > began
    ]


def _tasks(axis: Axes, record: Record, began: float, ended: float, shown: list[int]) -> None:
    """Draw a bar for each task: pale until it is healthy and while it stops.

    A narrow bar inside shows each lease that the task leads.
    """
    zero = record.began
    for place, number in enumerate(shown):
        member = record.members[number]
        colour = VERSIONS.get(member.version.name, "#cccccc")
        stopped = min(member.ended or inf, ended)
        leaving = min(member.leaving_at or inf, stopped)
        healthy = min(member.healthy_at or leaving, leaving)
        for since, until, alpha, hatch in (
            (member.began, healthy, 0.35, None),
            (healthy, leaving, 1.0, None),
            (leaving, stopped, 0.35, "////"),
        ):
            left, right = max(since, began) - zero, max(until, began) - zero
            axis.barh(place, right - left, left=left, height=0.8, color=colour, alpha=alpha, hatch=hatch, lw=0)
        for led in record.led:
            if led.task == member.label and led.began < ended and led.ended > began:
                left, right = max(led.began, began) - zero, min(led.ended, ended) - zero
                axis.barh(place + LANE[led.lease], right - left, left=left, height=0.24, color=LEADS[led.lease], lw=0)
    places = {record.members[number].label: place for place, number in enumerate(shown)}
    for fault in (fault for happened in record.happened for fault in happened.faults if fault.task in places):
        _fault(axis, places[fault.task], max(fault.span.began, began) - zero, min(fault.span.ended, ended) - zero)
    axis.set_yticks(range(len(shown)), [record.members[number].label for number in shown], fontsize=8)
    axis.set_ylim(len(shown) - 0.5, -0.5)
    _frame(axis, record, began, ended, names=True)


def _fault(axis: Axes, place: int, left: float, right: float) -> None:
    """Draw a frame around a task during a fault of more than a second, and a cross at a fault of one instant."""
    if right - left > 1:
        axis.barh(place, right - left, left=left, height=0.84, fill=False, edgecolor=BAD, linewidth=1.2, zorder=5)
    elif right >= left:
        axis.plot([left], [place], marker="X", color=BAD, markersize=8, markeredgecolor="white", zorder=6)


def _load(axis: Axes, record: Record, began: float, ended: float) -> None:
    """Draw the requests per second, the failed requests, and the broken streams."""
    zero = record.began
    first, last = int(began - zero), ceil(ended - zero)
    good = [request.at - zero for request in record.requests if request.error is None]
    failed = [request for request in record.requests if request.error is not None]
    unwanted = [none for happened in record.happened for none in happened.unwanted]
    excused = [request.at - zero for request in failed if any(touches(request, none) for none in unwanted)]
    bad = [request.at - zero for request in failed if not any(touches(request, none) for none in unwanted)]
    bins = list(range(first, last + 1))
    axis.hist([good, bad, excused], bins=bins, stacked=True, color=["#9bbf9b", BAD, EXCUSED], rwidth=0.9)
    broken = [each.at - zero for each in record.broken if began <= each.at < ended]
    top = axis.get_ylim()[1]
    axis.plot(broken, [top * 0.9] * len(broken), marker="v", linestyle="", color="#7a3fa0", markersize=5)
    axis.set_ylabel("requests/s", fontsize=8)
    axis.tick_params(axis="y", labelsize=7)
    _frame(axis, record, began, ended, names=False)


def _frame(axis: Axes, record: Record, began: float, ended: float, *, names: bool) -> None:
    """Set the range of time, and draw a line where each event begins."""
    zero = record.began
    free_from = [began] * 3
    axis.set_xlim(began - zero, ended - zero)
    axis.tick_params(axis="x", labelsize=7)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for happened, row in zip(record.happened, record.rows, strict=True):
        at = happened.span.began
        if not began <= at < ended:
            continue
        axis.axvline(at - zero, color="#555555", linewidth=0.8, linestyle=(0, (3, 2)))
        if names:
            colour = BAD if row.wrong else "#222222"
            level = next((place for place, free in enumerate(free_from) if free <= at), 0)
            free_from[level] = at + (ended - began) * LETTER * (len(happened.name) + 2)
            axis.annotate(
                happened.name,
                (at - zero, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(2, 3 + 10 * level),
                textcoords="offset points",
                fontsize=8,
                color=colour,
                annotation_clip=False,
            )


def _legend(record: Record) -> list[Patch | Line2D]:
    shown = {member.version.name for member in record.members}
    return [
        *(Patch(color=colour, label=f"task of version {name}") for name, colour in VERSIONS.items() if name in shown),
        Patch(facecolor="#cccccc", hatch="////", alpha=0.5, label="deregistered, stopping"),
        *(Patch(color=colour, label=f"leads {lease}") for lease, colour in LEADS.items()),
        Patch(color="#9bbf9b", label="request answered"),
        Patch(color=BAD, label="request failed"),
        Patch(color=EXCUSED, label="request failed, no task wanted"),
        Patch(facecolor="none", edgecolor=BAD, label="cut off, short of memory"),
        Line2D([], [], linestyle="", marker="X", color=BAD, label="killed, interrupted"),
        Line2D([], [], linestyle="", marker="v", color="#7a3fa0", label="stream broken"),
    ]
