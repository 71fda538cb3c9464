"""The picture of a run: the leaders and their grants, the faults and their places, and the changes of the leader.

Each round is a strip. A strip has rows for Redis, for the operator and for the database, and one row for each task with
the bars of its beliefs. The time axis is in seconds since the start of the run.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from math import inf
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from tests.chaos.database import CLAIM
from tests.chaos.faults import NETWORK, Happening
from tests.chaos.observers import Belief
from tests.chaos.run import Record, Stretch
from tests.chaos.schedule import LEASES, OPERATOR, POSTGRES, REDIS, Kind

COLOURS = dict(zip(LEASES, ("#0072b2", "#d55e00"), strict=True))
FROZEN, NET, DOWN, BAD = "#56b4e9", "#e6a817", "#444444", "#cc0033"
ROWS = "redis", "operator", "database"
ROW = 0.44
"""Height of a row, in inches."""
LANE = dict(zip(LEASES, (0.26, -0.26), strict=True))
"""Position of a lease's bar in its task's row, which is one unit high; faults of the network are in the middle."""
BAR = 0.26
LETTER = 0.66
"""Width of a letter, relative to the font size."""
SHORT = 1.0
"""Seconds below which a hand-over has a label in ms, and above which a bar shows the number of its term."""

_REDIS_TEXTS = {
    Kind.FAILOVER: "failover",
    Kind.RESTART_REDIS: "restarted empty",
    Kind.ISOLATE: "two primaries",
    Kind.BY_HAND: "failover by hand",
    Kind.OUTAGE: "zone outage",
    Kind.UNSEEN: "unseen failover",
    Kind.MIGRATE: "migration",
}


class _Labels:
    """Places text on an axis without overlaps: a text that would cover something moves aside or is omitted.

    Boxes are in the axis's units. The size of a text is estimated from its letters: the true size is known only after
    drawing.
    """

    def __init__(self, axis: Axes, seconds_an_inch: float) -> None:
        self._axis = axis
        self._seconds_a_point = seconds_an_inch / 72
        self._taken: list[tuple[float, float, float, float]] = []

    def take(self, left: float, right: float, level: float, high: float) -> None:
        """Reserve the box of a drawn object."""
        self._taken.append((left, right, level - high / 2, level + high / 2))

    def take_line(self, times: list[float], levels: list[float]) -> None:
        """Reserve the boxes along a drawn line."""
        parts = 12
        (since, until), (first, last) = times, levels
        for part in range(parts):
            at = since + (part + 0.5) / parts * (until - since)
            wide = (until - since) / parts / 2 + self._seconds_a_point
            self.take(at - wide, at + wide, first + (part + 0.5) / parts * (last - first), abs(last - first) / parts)

    def take_mark(self, at: float, level: float) -> None:
        """Reserve the box of a marker."""
        self.take(at - 4 * self._seconds_a_point, at + 4 * self._seconds_a_point, level, 8 / 72 / ROW)

    def put(self, text: str, places: Iterable[tuple[float, float]], colour: str, size: float = 6.5) -> None:
        """Write the text at the first free place. A place is the left edge and the vertical middle of the text."""
        wide, high = LETTER * size * len(text) * self._seconds_a_point, 1.05 * size / 72 / ROW
        for left, level in places:
            box = left, left + wide, level - high / 2, level + high / 2
            if not any(
                box[0] < right and box[1] > other and box[2] < top and box[3] > bottom
                for other, right, bottom, top in self._taken
            ):
                self._taken.append(box)
                self._axis.text(left, level, text, fontsize=size, color=colour, va="center", zorder=8)
                return

    def beside(self, at: float, text: str, size: float = 6.5) -> tuple[float, float]:
        """Return two left edges for a text: one places it to the right of a time, the other to the left."""
        gap = 2 * self._seconds_a_point
        return at + gap, at - gap - LETTER * size * len(text) * self._seconds_a_point


def draw(record: Record, path: Path) -> None:
    """Draw the run to a file; the end of its name gives the format."""
    strips = list(_strips(record))
    rows = len(ROWS) + len(record.tasks)
    longest = max(end - began for _, began, end in strips)
    width = min(26.0, max(12.0, 0.27 * longest + 2))
    height = 1.5 + len(strips) * (ROW * rows + 0.75)
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(len(strips), squeeze=False)[:, 0]
    for axis, (title, began, end) in zip(axes, strips, strict=True):
        _strip(axis, record, began, end, longest, _Labels(axis, longest / (width - 1)))
        axis.set_title(title, loc="left", fontsize=9, fontweight="bold")
    axes[-1].set_xlabel("seconds since the run began")
    found = len(record.violations)
    done = sum(not happening.skipped for happening in record.happenings)
    result = f"{found} VIOLATIONS" if found else "every promise was kept"
    figure.suptitle(
        f"Chaos run, seed {record.seed}: {len(record.tasks)} tasks, lease of {record.ttl:g} s,"
        f" {done} faults, {len({(b.lease, b.token) for b in record.beliefs})} terms: {result}",
        fontsize=12,
        color=BAD if found else "black",
    )
    figure.legend(handles=_legend(), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)


def _strips(record: Record) -> Iterator[tuple[str, float, float]]:
    """Yield title, begin and end of each round's strip.

    The first strip includes the start of the run, and the last strip includes its end.
    """
    numbers = sorted({stretch.round for stretch in record.stretches if stretch.round}) or [0]
    for number in numbers:
        mine = [one for one in record.stretches if one.round == number or (number == numbers[0] and not one.round)]
        end = record.ended if number == numbers[-1] else max(one.ended for one in mine)
        measured = [m for m in record.measures if m.round == number]
        calm = "".join(
            f"; in the calm {m.lease} had a leader again {m.seconds * 1000:.0f} ms after a {m.kind}" for m in measured
        )
        yield (f"Round {number}{calm}" if number else "The run did not start"), min(one.began for one in mine), end


def _strip(axis: Axes, record: Record, began: float, end: float, longest: float, labels: _Labels) -> None:
    zero = record.began
    places = {name: -row for row, name in enumerate((*ROWS, *record.tasks))}
    axis.set_xlim(began - zero, began - zero + longest * 1.01)
    axis.set_ylim(-len(places) + 0.4, 0.6)
    axis.set_yticks(list(places.values()), list(places), fontsize=8)
    axis.tick_params(axis="x", labelsize=8)
    axis.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    for task in record.tasks:
        axis.axhline(places[task] + 0.5, color="#dddddd", linewidth=0.6, zorder=0)
    for stretch in _within(record.stretches, began, end):
        _stretch(axis, stretch, zero)
    _lives(axis, record, places, began, end, labels)
    for belief in record.beliefs:
        if belief.began < end and belief.end > began:
            labels.take(belief.began - zero, belief.end - zero, places[belief.task] + LANE[belief.lease], BAR)
    for happening in record.happenings:
        if happening.began < end and happening.ended >= began:
            _happening(axis, happening, places, zero, labels)
    _beliefs(axis, record, places, began, end, labels)
    _writes(axis, record, places["database"], began, end)
    for violation in record.violations:
        if violation.at is not None and began <= violation.at <= end:
            axis.axvline(violation.at - zero, color=BAD, linewidth=1.5, zorder=9)
            edges = labels.beside(violation.at - zero, violation.law, size=8)
            labels.put(violation.law, [(left, 0.75) for left in edges], BAD, size=8)


def _within(stretches: Iterable[Stretch], began: float, end: float) -> Iterator[Stretch]:
    return (one for one in stretches if began <= one.began < end)


def _stretch(axis: Axes, stretch: Stretch, zero: float) -> None:
    colour = {"storm": "#fdf3e7", "calm": "#eef7ee", "start": "#f4f4f4"}[stretch.name]
    axis.axvspan(stretch.began - zero, stretch.ended - zero, color=colour, linewidth=0, zorder=-2)
    axis.text(
        stretch.began - zero + 0.1, 0.56, stretch.name, fontsize=7, va="top", color="#777777", style="italic", zorder=1
    )


def _lives(axis: Axes, record: Record, places: dict[str, int], began: float, end: float, labels: _Labels) -> None:
    """Draw a thin line below each task's bars while its sidecar runs, and a line above while its API runs."""
    for life in record.lives:
        since, until = max(life.began, began), min(life.ended, end)
        if since < until:
            level = places[life.task] + (0.43 if life.container == "api" else -0.43)
            axis.plot([since - record.began, until - record.began], [level, level], color="#999999", linewidth=1.1)
            labels.take(since - record.began, until - record.began, level, 0.02)


def _beliefs(axis: Axes, record: Record, places: dict[str, int], began: float, end: float, labels: _Labels) -> None:
    zero = record.began
    gaps: list[tuple[str, float, float, float, str]] = []
    for lease in LEASES:
        mine = sorted((one for one in record.beliefs if one.lease == lease), key=lambda one: one.began)
        ordinals = {token: n for n, token in enumerate(sorted({one.token for one in mine}), 1)}
        for belief in mine:
            if belief.began < end and belief.end > began:
                _belief(axis, belief, places[belief.task] + LANE[lease], record, end, ordinals[belief.token])
        for before, after in pairwise(mine):
            if began <= after.began <= end and before.end >= began:
                gap = after.began - before.end
                low, high = (places[one.task] + LANE[lease] for one in (before, after))
                line = [before.end - zero, after.began - zero], [low, high]
                faint = 1.0 if gap < SHORT else 0.4
                axis.plot(*line, color=COLOURS[lease], lw=0.9, ls=(0, (2, 1.5)), alpha=faint, zorder=3)
                if 0 <= gap < SHORT:
                    labels.take_line(*line)
                    if before.token != after.token:
                        gaps.append((f"{gap * 1000:.0f} ms", after.began - zero, low, high, COLOURS[lease]))
    for text, at, low, high, colour in gaps:  # after all lines, because no text may cross a line
        along = [high - part / 16 * (high - low) for part in (8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)]
        labels.put(text, [(left, level) for left in labels.beside(at, text) for level in along], colour)


def _belief(axis: Axes, belief: Belief, level: float, record: Record, end: float, ordinal: int) -> None:
    """Draw the bar of a belief with a notch for each extension of its grant, and the term's number if there is room."""
    zero = record.began
    left, right = belief.began - zero, min(belief.end, end) - zero
    axis.add_patch(Rectangle((left, level - BAR / 2), right - left, BAR, color=COLOURS[belief.lease], lw=0, zorder=4))
    grants = [at - zero for at in belief.extended if at < min(belief.end, end)]
    axis.vlines(grants, level - BAR / 2, level - BAR / 6, color="white", linewidth=0.4, zorder=5)
    if right - left > SHORT:
        axis.text(
            left + 0.12, level, str(ordinal), fontsize=6.5, color="white", va="center", fontweight="bold", zorder=6,
            clip_on=True,
        )  # fmt: skip


def _happening(axis: Axes, happening: Happening, places: dict[str, int], zero: float, labels: _Labels) -> None:
    kind, at = happening.kind, happening.began - zero
    lasts = (happening.ended if happening.ended < inf else happening.began) - happening.began
    if happening.skipped:
        return
    if kind in OPERATOR:
        row, lane = places["operator"], LANE[happening.where]
        if kind is Kind.DISABLE:
            _span(axis, at, lasts, row + lane, 0.32, COLOURS[happening.where], alpha=0.25)
        axis.plot([at], [row + lane], marker="|", color=COLOURS[happening.where], markersize=7)
        labels.put(kind, [(left, row + lane) for left in labels.beside(at, kind)], COLOURS[happening.where])
    elif kind in REDIS or kind in POSTGRES:
        row = places["redis" if kind in REDIS else "database"]
        frozen = kind in (Kind.FREEZE_REDIS, Kind.FREEZE_POSTGRES)
        _span(axis, at, lasts, row, 0.7, FROZEN if frozen else DOWN, alpha=0.55 if frozen else 0.3)
        text = _REDIS_TEXTS.get(kind, kind.split()[0])
        if kind is Kind.STEP_CLOCK:
            axis.plot([at], [row], marker="|", color="black", markersize=9)
            text = f"clock {happening.note.split(',')[0]}"
        labels.put(text, [(labels.beside(at, text)[0], level) for level in (row, row + 0.3, row - 0.3)], "black")
    else:
        _task_fault(axis, happening, places[happening.where], at, lasts, labels)


def _task_fault(axis: Axes, happening: Happening, row: float, at: float, lasts: float, labels: _Labels) -> None:
    kind = happening.kind
    level, high = row, 0.94
    if kind in (Kind.FREEZE_API, Kind.FREEZE_WRITER, Kind.KILL_API):
        level, high = row + 0.43, 0.2
    elif kind in (Kind.FREEZE_SIDECAR, Kind.KILL_SIDECAR):
        level, high = row - 0.43, 0.2
    if kind in (Kind.FREEZE_API, Kind.FREEZE_SIDECAR, Kind.FREEZE_TASK, Kind.FREEZE_WRITER):
        _span(axis, at, lasts, level, high, FROZEN, alpha=0.5)
    elif kind in NETWORK:
        _span(axis, at, max(lasts, 0.1), row, 0.22, NET, alpha=0.9)
        right, left = labels.beside(at, kind, size=6.0)
        labels.put(kind, [(right, row), (left, row), (right, row + 0.26), (right, row - 0.26)], "black", size=6.0)
    elif kind is Kind.DEPLOY:
        labels.take_mark(at, level)
        axis.plot([at], [level], marker="v", color="#008844", markersize=8, markeredgecolor="white", zorder=8)
    elif kind is Kind.KILL_TASK:
        axis.plot([at, at], [row + 0.43, row - 0.43], marker="X", color=BAD, markersize=7, linewidth=1, zorder=8)
    else:
        labels.take_mark(at, level)
        axis.plot([at], [level], marker="X", color=BAD, markersize=7, markeredgecolor="white", zorder=8)


def _span(axis: Axes, at: float, lasts: float, level: float, high: float, colour: str, *, alpha: float) -> None:
    axis.add_patch(Rectangle((at, level - high / 2), lasts, high, color=colour, alpha=alpha, lw=0, zorder=3.5))


def _writes(axis: Axes, record: Record, row: float, began: float, end: float) -> None:
    """Draw a short vertical line for each accepted write, and a cross for each refused write or claim."""
    for lease in LEASES:
        times = [write.at - record.boot for write in record.writes if write.lease == lease and write.via != CLAIM]
        shown = [at - record.began for at in times if began <= at <= end]
        axis.vlines(shown, row + LANE[lease] - 0.16, row + LANE[lease] + 0.16, color=COLOURS[lease], linewidth=0.4)
        crosses = [refusal.at for refusal in record.refusals if refusal.lease == lease and began <= refusal.at <= end]
        level = row + LANE[lease]
        axis.plot([at - record.began for at in crosses], [level] * len(crosses), "x", color=BAD, markersize=6, zorder=8)


def _legend() -> list[Patch | Line2D]:
    return [
        *(Patch(color=colour, label=f"{lease}: a client believes") for lease, colour in COLOURS.items()),
        Line2D([], [], color="#888888", linestyle=(0, (2, 1.5)), label="the leader changes (time without a leader)"),
        Patch(color=FROZEN, alpha=0.5, label="frozen (API above, sidecar below)"),
        Patch(color=NET, label="network between sidecar and Redis"),
        Patch(color=DOWN, alpha=0.3, label="fault of Redis or Postgres"),
        Line2D([], [], ls="", marker="X", color=BAD, label="SIGKILL"),
        Line2D([], [], ls="", marker="v", color="#008844", label="deploy (SIGTERM, replaced)"),
        Line2D([], [], ls="", marker="x", color=BAD, label="stale write refused"),
        Line2D([], [], color="#999999", label="process runs (API above, sidecar below)"),
    ]
