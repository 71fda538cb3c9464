"""The rules of a soak, applied to the observations of a run. No I/O."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from bench.soak.flat import MEASURES, TASKS, Growth, Measure, growth
from bench.soak.fleet import LABELS, RESTARTED, SETTINGS
from bench.soak.handovers import EVERY as HAND_OVERS_EVERY
from bench.soak.leads import Causes, gaps, lost_in_histories, lost_in_logs
from bench.soak.logs import MAX_LINES, Line, alarming, ended_terms, per_hand_over
from bench.soak.samples import EVERY, METRICS, REDIS, Life
from bench.soak.visitors import Visits
from sidecar.history import Entry

EXPECTED = "AUTH=off", "PRICE_SOURCE=simulated"
"""Beginnings of the warnings that the soak's settings cause at the start of an API."""
LATE = re.compile(r"\b(in time|timeout|late|longer|the work stopped|was frozen|after its deadline)\b")
"""Pattern of the warnings that a standstill of the machine causes."""
SHOWN = 5
"""Maximum number of lines that the verdict shows for one rule."""
CALLS = 2
"""Number of RENEW calls per heartbeat: the renewal, and a check of the key after Redis's notice of that write."""
JUDGED = REDIS, *(f"{label} {container}" for label in LABELS if label != RESTARTED for container in METRICS)
"""Names of the processes that run for the whole time."""


@dataclass(frozen=True)
class Observed:
    """The observations of a run. Times are in ms since 1970.

    Attributes:
        minutes: the duration.
        lives: the sampled processes.
        histories: the entries of each lease's history, in order.
        causes: the causes for the end of a term.
        restarts: start and end of each restart of a task.
        problems: hand-overs that failed, and histories that could not be read.
        visits: the requests and the streams.
        lines: the log lines of all containers.
    """

    minutes: float
    lives: Sequence[Life]
    histories: Mapping[str, Sequence[Entry]]
    causes: Causes
    restarts: Sequence[tuple[float, float]]
    problems: Sequence[str]
    visits: Visits
    lines: Sequence[Line]

    @property
    def gaps(self) -> list[float]:
        """Milliseconds from each release to the next term."""
        return [gap for entries in self.histories.values() for gap in gaps(entries)]

    @property
    def renewals(self) -> float:
        """The number of calls with which the sidecars renewed."""
        return sum(life.renewals for life in self.lives)

    @property
    def lines_per_hand_over(self) -> float:
        """The number of log lines of all containers for each hand-over."""
        return per_hand_over(self.lines, len(self.gaps))

    def excuses(self, label: str, at: float) -> bool:
        """Return true if the task was restarting at that time, or the machine stood still."""
        restarts = self.restarts if label == RESTARTED else ()
        return self.causes.stood_still(at) or any(began <= at <= ended for began, ended in restarts)


@dataclass
class Verdict:
    """The growth of each judged process, by name and measure, and one line for each broken rule."""

    growths: dict[tuple[str, Measure], Growth] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


def judge(observed: Observed) -> Verdict:
    """Apply every rule to the run."""
    verdict = Verdict()
    for name in JUDGED:
        verdict.broken += _growing(observed, name, verdict.growths)
    for rule in (
        lost_in_histories(observed.histories, observed.causes),
        lost_in_logs(ended_terms(observed.lines), observed.causes),
        observed.problems,
        [f"the log is not quiet: {line}" for line in alarming(observed.lines, lambda line: _expected(observed, line))],
        [
            f"a request to {failure.label} failed at {_time(failure.at)}: {failure.text}"
            for failure in observed.visits.failures
            if not observed.excuses(failure.label, failure.at)
        ],
        list(_measured(observed)),
    ):
        verdict.broken += rule[:SHOWN]
        if len(rule) > SHOWN:
            verdict.broken.append(f"... and {len(rule) - SHOWN} more of this kind")
    return verdict


def _growing(observed: Observed, name: str, growths: dict[tuple[str, Measure], Growth]) -> Iterator[str]:
    """Judge a process: it must run for the whole time, and its measures must be flat."""
    lives = [life for life in observed.lives if life.name == name]
    if len(lives) != 1 or lives[0].ended < 60 * observed.minutes - 3 * EVERY:
        yield f"{name}: no single process ran for the whole time; processes seen: {len(lives)}"
        return
    for measure in MEASURES:
        if name == REDIS and measure is TASKS:
            continue
        try:
            found = growths[name, measure] = growth(lives[0].points[measure], measure)
        except ValueError as error:
            yield f"{name}: {measure.name} cannot be judged: {error}"
            continue
        if not found.flat:
            grown = f"grew by {found.grown:.1f} from {found.start:.1f} {measure.unit}"
            yield f"{name}: {measure.name} {grown}, at most {found.limit:.1f} is allowed"


def _time(at: float) -> str:
    """Return a time in the format of the logs."""
    return f"{datetime.fromtimestamp(at / 1000, UTC):%H:%M:%S.%f}"[:-3]


def _expected(observed: Observed, line: Line) -> bool:
    late = LATE.search(line.message) is not None and observed.causes.stood_still(line.at)
    return line.message.startswith(EXPECTED) or late


def _measured(observed: Observed) -> Iterator[str]:
    """Judge the number of log lines, and the size of the load: a small load proves nothing."""
    if observed.lines_per_hand_over > MAX_LINES:
        lines = f"{observed.lines_per_hand_over:.1f} lines for each hand-over"
        yield f"the log is not quiet: {lines}, at most {MAX_LINES:g} are allowed"
    seconds = 60 * observed.minutes
    renewals = CALLS * seconds * len(observed.histories) / float(SETTINGS["HEARTBEAT_INTERVAL"])
    for what, number, most in (
        ("hand-overs", len(observed.gaps), seconds / HAND_OVERS_EVERY),
        ("renewals", observed.renewals, renewals),
    ):
        if number < most / 2:
            yield f"the load was too small: {number:.0f} {what} are fewer than half of {most:.0f}"
