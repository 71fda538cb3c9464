"""Each rule of the soak can fail: a run that keeps every rule passes, and the same run with one fault fails."""

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from bench.soak.flat import DESCRIPTORS, MEMORY, TASKS, THREADS
from bench.soak.judge import JUDGED, SHOWN, Observed, judge
from bench.soak.leads import Causes
from bench.soak.logs import Line
from bench.soak.report import lines_of, report
from bench.soak.samples import Life
from bench.soak.visitors import Failure, Visits
from sidecar.history import Entry, Event

SECONDS = 300
TERMS = range(1, SECONDS + 1)


def life(name: str, leak: float = 0.0, ended: int = SECONDS) -> Life:
    points = {
        measure: [(float(at), 40 + leak * at) for at in range(0, ended, 3)]
        for measure in (MEMORY, DESCRIPTORS, THREADS)
    }
    return Life(name, 1, 12000.0, points | {TASKS: [] if name == "redis" else points[MEMORY]})


def good() -> Observed:
    """Return a run of five minutes, in which each holder is asked to step down after a second."""
    history = [
        Entry(1000 * token + 998 * late, event, token, f"holder{token % 2}")
        for token in TERMS
        for late, event in enumerate((Event.ACQUIRE, Event.RELEASE))
    ]
    return Observed(
        minutes=SECONDS / 60,
        lives=[life(name) for name in (*JUDGED, "task3 api")],
        histories={"work": history, "other": []},
        causes=Causes(stepped_down=set(TERMS), standstills=[(100_000, 100_900)]),
        restarts=[(10_000, 14_000)],
        problems=[],
        visits=Visits(failures=[Failure("task3", 12_000, "refused"), Failure("task1", 100_500, "late")]),
        lines=[Line("task1-api", 1000.0 * token, "INFO", "any") for token in TERMS for _ in range(13)]
        + [
            Line("task3-api", 12_000, "WARNING", "AUTH=off: everybody"),
            Line("task1-api", 101_000, "ERROR", "no answer in time"),
            Line("task1-api", 101_000, "ERROR", "the work was cancelled but still runs after its deadline"),
        ],
    )


def test_a_run_that_keeps_every_rule_passes() -> None:
    verdict = judge(good())
    assert verdict.broken == []
    assert lines_of(verdict) == "VERDICT  every rule was kept"
    found = report(good(), verdict)
    assert [plot.name for plot in found.plots] == ["soak-memory", "soak-descriptors", "soak-tasks", "soak-threads"]
    assert "299" in found.tables[1].text()
    assert all(after.at >= before.at for before, after in pairwise(good().histories["work"]))


FAULTS: dict[str, tuple[Callable[[Observed], dict[str, Any]], str]] = {
    "a leak": (
        lambda run: {"lives": [*run.lives[1:], life("redis", leak=0.1)]},
        "redis: descriptors grew by 22.2 from",
    ),
    "a process that was restarted": (
        lambda run: {"lives": [*run.lives, life(JUDGED[1])]},
        "task1 sidecar: no single process ran for the whole time; processes seen: 2",
    ),
    "a process that ended": (
        lambda run: {"lives": [*run.lives[1:], life("redis", ended=200)]},
        "redis: no single process ran for the whole time; processes seen: 1",
    ),
    "a process without samples": (
        lambda run: {"lives": [Life(one.name, 1, 6000.0, one.points | {TASKS: []}) for one in run.lives]},
        "task1 sidecar: tasks cannot be judged",
    ),
    "a lost lead": (
        lambda run: {"causes": Causes(stepped_down=set(TERMS) - {200})},
        "holder0 released term 200 of work without a cause",
    ),
    "a lost lead in a log": (
        lambda run: {
            "lines": [
                *run.lines,
                Line(
                    "task1-api", 1.0, "INFO", "", {"event": "work_ended", "lease": "work", "token": 0, "instance": ""}
                ),
            ]
        },
        "task1-api: term 0 of work ended without a cause",
    ),
    "a hand-over that failed": (lambda run: {"problems": ["nobody took it"]}, "nobody took it"),
    "a request that failed": (
        lambda run: {"visits": Visits(failures=[Failure("task3", 15_000, "/healthz: status 500")])},
        "a request to task3 failed at 00:00:15.000: /healthz: status 500",
    ),
    "a request to another task during the restart": (
        lambda run: {"visits": Visits(failures=[Failure("task1", 12_000, "refused")])},
        "a request to task1 failed at 00:00:12.000: refused",
    ),
    "a warning": (
        lambda run: {"lines": [*run.lines, Line("task1-api", 5_000, "WARNING", "slow")]},
        "the log is not quiet: task1-api: WARNING: slow",
    ),
    "a warning that a standstill does not cause": (
        lambda run: {"lines": [*run.lines, Line("task1-api", 100_500, "WARNING", "a fault")]},
        "the log is not quiet: task1-api: WARNING: a fault",
    ),
    "a late answer without a standstill": (
        lambda run: {"lines": [*run.lines, Line("task1-api", 90_000, "ERROR", "no answer in time")]},
        "the log is not quiet: task1-api: ERROR: no answer in time",
    ),
    "a long log": (lambda run: {"lines": list(run.lines) * 2}, "the log is not quiet: 26.1 lines for each hand-over"),
    "few hand-overs": (
        lambda run: {"histories": {"work": run.histories["work"][:200], "other": []}, "lines": run.lines[:100]},
        "the load was too small: 99 hand-overs",
    ),
    "few renewals": (
        lambda run: {"lives": [Life(one.name, 1, 7.0, one.points) for one in run.lives]},
        "the load was too small: 42 renewals are fewer than half of 24000",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_breaks_its_rule(fault: str) -> None:
    change, expected = FAULTS[fault]
    run = good()
    verdict = judge(dataclasses.replace(run, **change(run)))
    assert any(line.startswith(expected) for line in verdict.broken), verdict.broken
    assert f"BROKEN  {expected}" in lines_of(verdict)


def test_the_lines_of_one_rule_are_limited() -> None:
    broken = judge(dataclasses.replace(good(), problems=[f"fault {number}" for number in range(9)])).broken
    assert broken[:SHOWN] == [f"fault {number}" for number in range(SHOWN)]
    assert broken[SHOWN:] == ["... and 4 more of this kind"]
