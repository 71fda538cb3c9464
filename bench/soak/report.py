"""The report of a soak: tables, a plot of each measure, and the verdict."""

import redis

from bench.report import Plot, Report, Spread, Table
from bench.soak.flat import MEASURES, WARM_UP, Measure, thinned
from bench.soak.fleet import RESTARTED, SETTINGS
from bench.soak.judge import Observed, Verdict
from bench.soak.logs import MAX_LINES
from bench.soak.samples import Life

MAX_POINTS = 150
"""Points of one process in a plot."""

TEXT = f"""\
Three whole tasks (sidecar and API), a real Redis and a real Postgres. An operator asks a leader to step down each
second, a leader renews every {1000 * float(SETTINGS["HEARTBEAT_INTERVAL"]):.0f} ms, {RESTARTED} restarts once a minute,
streams come and go, and requests reach every listener. `LEASE_TTL` is {SETTINGS["LEASE_TTL"]} s, `GRANT_TTL` is
{SETTINGS["GRANT_TTL"]} s.

A measure is flat if its growth after the first {100 * WARM_UP:.0f} % of the run stays within a limit. The growth is the
larger of two values: the Theil-Sen slope times the duration, and the difference between the medians of the last and the
first fifth."""


def report(observed: Observed, verdict: Verdict) -> Report:
    """Return the report."""
    return Report(
        name="soak",
        title="Soak",
        command=f"make soak MINUTES={observed.minutes:g}",
        text=TEXT,
        tables=(_growths(verdict), _counts(observed, verdict)),
        plots=tuple(_plot(observed, measure) for measure in MEASURES),
        versions={"redis-py": redis.__version__},
    )


def lines_of(verdict: Verdict) -> str:
    """Return one line for each broken rule, or one line if every rule was kept."""
    return "\n".join(f"BROKEN  {line}" for line in verdict.broken) or "VERDICT  every rule was kept"


def _growths(verdict: Verdict) -> Table:
    rows = [
        (name, f"{measure.name}, {measure.unit}", f"{found.start:.1f}", f"{found.grown:+.1f}", f"{found.limit:.1f}")
        for (name, measure), found in verdict.growths.items()
    ]
    return Table(("process", "measure", "after the warm-up", "growth", "limit"), tuple(rows))


def _counts(observed: Observed, verdict: Verdict) -> Table:
    gap = Spread.of(observed.gaps) if observed.gaps else Spread(0, 0, 0, 0)
    rows = [
        ("hand-overs", f"{gap.rounds}"),
        ("calls that renew a lease, or check its key after a notice of a change", f"{observed.renewals:.0f}"),
        ("from a release to the next term, median, ms", f"{gap.median:.0f}"),
        ("99th percentile, ms", f"{gap.p99:.0f}"),
        ("worst, ms", f"{gap.worst:.0f}"),
        (f"restarts of {RESTARTED}", f"{len(observed.restarts)}"),
        ("requests", f"{observed.visits.requests}"),
        ("streams", f"{observed.visits.streams}"),
        ("values in streams", f"{observed.visits.events}"),
        (f"log lines for each hand-over (limit {MAX_LINES:g})", f"{observed.lines_per_hand_over:.1f}"),
        ("standstills of the machine, s", f"{observed.causes.stood_still_for / 1000:.1f}"),
        ("broken rules", f"{len(verdict.broken)}"),
    ]
    return Table(("in the run", "number"), tuple(rows))


def _plot(observed: Observed, measure: Measure) -> Plot:
    series: dict[str, list[tuple[float, float]]] = {}
    for life in observed.lives:
        if life.points[measure]:
            series.setdefault(life.name, []).extend(_in_minutes(life, measure, observed.minutes))
    return Plot(f"soak-{measure.name}", f"{measure.name.capitalize()} of each process", "minutes", measure.unit, series)


def _in_minutes(life: Life, measure: Measure, minutes: float) -> list[tuple[float, float]]:
    points = life.points[measure]
    share = (points[-1][0] - points[0][0]) / (60 * minutes)
    return [(at / 60, value) for at, value in thinned(points, max(2, round(MAX_POINTS * share)))]
