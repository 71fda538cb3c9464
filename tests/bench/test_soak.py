"""The rules of the soak: flat series, no lost leads, and quiet logs."""

import asyncio
import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, pairwise, repeat
from pathlib import Path
from typing import Any

import pytest

from bench.soak import machine
from bench.soak.flat import DESCRIPTORS, MEASURES, MEMORY, TASKS, THREADS, Measure, Point, growth, judged, thinned
from bench.soak.handovers import epoch_ms
from bench.soak.leads import GRACE_MS, Causes, Ended, gaps, lost_in_histories, lost_in_logs
from bench.soak.logs import Line, alarming, ended_terms, parse, per_hand_over, read_log
from sidecar.history import Entry, Event
from tests.support.waiting import eventually

SAMPLES = range(0, 300, 3)
"""Times, in seconds, of the samples in five minutes."""


def series(level: float, leak: float = 0.0, noise: float = 0.0, begins: float = 0.0) -> list[Point]:
    """Return a series around `level` that grows by `leak` each second after `begins`."""
    chance = random.Random(7)
    return [(at, level + leak * max(0.0, at - begins) + chance.gauss(0, noise)) for at in SAMPLES]


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_a_constant_series_is_flat(measure: Measure) -> None:
    assert growth(series(40), measure).flat


def test_noise_does_not_count_as_growth() -> None:
    """Streams come and go, so the number of an API's asyncio tasks varies."""
    assert growth(series(40, noise=4), TASKS).flat


def test_the_warm_up_does_not_count_as_growth() -> None:
    warming = [(at, 40 + min(at, 60) / 2) for at in SAMPLES]
    assert judged(warming)[0][0] >= 60
    assert growth(warming, MEMORY).flat


def test_a_few_outliers_do_not_count_as_growth() -> None:
    points = series(40)
    for place in (60, 70, 99):
        points[place] = points[place][0], 400.0
    assert growth(points, DESCRIPTORS).flat


@pytest.mark.parametrize(
    ("measure", "leak"),
    [
        (MEMORY, 1 / 64),  # 48 KiB per hand-over; a task has a hand-over every three seconds
        (DESCRIPTORS, 1 / 20),
        (TASKS, 1 / 20),
        (THREADS, 1 / 60),
    ],
    ids=lambda value: value.name if isinstance(value, Measure) else None,
)
def test_a_slow_leak_counts_as_growth(measure: Measure, leak: float) -> None:
    found = growth(series(40, leak, noise=0.3), measure)
    assert not found.flat
    assert found.grown == pytest.approx(leak * 225, rel=0.1)


def test_a_leak_that_begins_late_counts_as_growth() -> None:
    """The series is constant for the first 250 of its 300 seconds, so its Theil-Sen slope is zero."""
    assert not growth(series(40, 1 / 3, begins=250), DESCRIPTORS).flat


def test_a_permanent_jump_counts_as_growth() -> None:
    assert not growth([(at, 40 + 20 * (at > 200)) for at in SAMPLES], DESCRIPTORS).flat


def test_a_falling_series_is_flat() -> None:
    assert growth(series(400, -1), MEMORY).flat


def test_a_series_that_is_too_short_cannot_be_judged() -> None:
    for points in ([], series(40)[:5]):
        with pytest.raises(ValueError, match="fewer than"):
            growth(points, TASKS)


def test_a_plot_keeps_the_peaks() -> None:
    points = series(40)
    points[50] = points[50][0], 90.0
    shown = thinned(points, 20)
    assert len(shown) == 20
    assert max(value for _, value in shown) == 90
    assert shown[-1][0] == points[-1][0]
    assert thinned([], 20) == []


def term(token: int, holder: str = "one", at: int | None = None, reason: str = "") -> list[Entry]:
    """Return the entries of a term of 998 ms.

    By default it begins `token` seconds after 0, so there are 2 ms between the terms of two consecutive tokens.
    """
    began = 1000 * token if at is None else at
    return [Entry(began, Event.ACQUIRE, token, holder), Entry(began + 998, Event.RELEASE, token, holder, reason)]


def texts(entries: list[Entry], causes: Causes) -> list[str]:
    return lost_in_histories({"work": entries}, causes)


def test_a_step_down_is_the_cause_of_a_release() -> None:
    assert texts([*term(1), *term(2, "two")], Causes(stepped_down={1, 2})) == []


def test_a_release_without_a_cause_is_a_lost_lead() -> None:
    found = texts([*term(1), *term(2, "two", reason="client")], Causes(stepped_down={1}))
    assert found == ["two released term 2 of work without a cause (client)"]


def test_a_stop_of_the_task_is_the_cause_of_its_later_releases_only() -> None:
    terms = [*term(1), *term(2, "two"), *term(3)]
    assert texts(terms, Causes({2}, stopped={"one": 3500.0})) == ["one released term 1 of work without a cause"]


def test_a_term_that_ends_without_a_release_is_a_lost_lead() -> None:
    """An expired or deleted key adds no release to the history. A step-down does not explain a missing release."""
    terms = [term(1)[0], *term(2, "two")]
    assert texts(terms, Causes({1, 2})) == ["one lost term 1 of work without a release"]


def test_a_term_that_is_recorded_twice_is_not_lost() -> None:
    """An acquire whose reply was lost is recorded twice under one token."""
    first, release = term(1)
    assert texts([first, first, release], Causes({1})) == []


def test_a_standstill_of_the_machine_is_a_cause() -> None:
    terms = [term(1)[0], *term(2, "two")]
    assert texts(terms, Causes({2}, standstills=[(500, 1500)])) == []
    assert len(texts(terms, Causes({2}, standstills=[(500, 1999 - GRACE_MS)]))) == 1


def test_an_end_in_a_log_needs_a_cause() -> None:
    """If the candidate adopted the term again under the same token, the history does not show the end."""
    end = Ended("task1-sidecar", "work", 1, "one", 1500.0)
    assert lost_in_logs([end], Causes()) == ["task1-sidecar: term 1 of work ended without a cause"]
    assert lost_in_logs([end], Causes(stopped={"one": 1600.0})) != []
    deleted = replace(end, reason="vacant")
    assert lost_in_logs([deleted], Causes(standstills=[(1000, 1500)])) == [
        "task1-sidecar: term 1 of work ended without a cause (vacant)"
    ]
    for reason in ("", "resigned", "client_silent", "deadline"):
        for causes in (Causes({1}), Causes(stopped={"one": 1400.0}), Causes(standstills=[(1000, 1500)])):
            assert lost_in_logs([replace(end, reason=reason)], causes) == []
        assert lost_in_logs([replace(end, reason=reason)], Causes()) != []


def test_the_ends_of_sidecars_and_apis_are_found() -> None:
    fields: dict[str, Any] = {"lease": "work", "token": 1, "instance": "one"}
    lines = [parse("any", line(event, event=event, **fields)) for event in ("term_ended", "work_ended", "term_began")]
    assert ended_terms(lines) == [Ended("any", "work", 1, "one", 1795903200500.0)] * 2


def test_a_gap_runs_from_a_release_to_the_next_term() -> None:
    terms = list(chain(term(1), term(2, "two"), term(3, at=3010)))
    assert gaps(terms) == [2, 12]
    assert all(after.at >= before.at for before, after in pairwise(terms))


def line(message: str, level: str = "INFO", **fields: object) -> str:
    return json.dumps({"time": "2026-11-28T22:00:00.500Z", "level": level, "message": message, **fields})


def test_a_log_is_read_with_its_times(tmp_path: Path) -> None:
    file = tmp_path / "task1-api.log"
    file.write_text(line("first") + "\nTraceback (most recent call last):\n")
    first, second = read_log(file)
    assert (first.where, first.at, first.level, first.message) == ("task1-api", 1795903200500.0, "INFO", "first")
    assert second == Line("task1-api", 0.0, "", "Traceback (most recent call last):")


@pytest.mark.parametrize("broken", ["", "[]", "7", '{"level": "INFO"}', '{"time": "now", "level": "INFO"}'])
def test_a_line_that_is_not_json_is_alarming(broken: str) -> None:
    assert alarming([parse("task1-api", broken)], lambda _: False) == [f"task1-api: not JSON: {broken}"]


def test_warnings_and_errors_are_alarming_once_for_each_kind() -> None:
    lines = [parse("task1-api", line(f"lost {number}", "WARNING")) for number in range(3)]
    lines += [parse("task1-api", line("quiet")), parse("task2-api", line("failed", "ERROR"))]
    assert alarming(lines, lambda _: False) == [
        "task1-api: WARNING: lost 0 (3 times)",
        "task2-api: ERROR: failed",
    ]
    assert alarming(lines, lambda each: each.message.startswith(("lost", "failed"))) == []


def test_log_lines_are_counted_per_hand_over() -> None:
    lines = [parse("task1-api", line("any"))] * 30
    assert per_hand_over(lines, 10) == 3
    assert per_hand_over(lines, 0) == 30


async def test_a_process_without_a_processor_is_a_standstill(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = chain([0.0, 0.01, 0.2], repeat(0.2))
    monkeypatch.setattr(machine, "waited_for_processor", lambda _: next(waits))
    monkeypatch.setattr(machine, "WINDOW", 0.0)
    found = await standstills(lambda: [1])
    assert len(found) == 1


async def test_a_frozen_processor_is_a_standstill(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread of each processor reports a standstill, because the threshold is shorter than the thread's pause."""
    monkeypatch.setattr(machine, "STANDSTILL", 0.001)
    assert all(ended > began for began, ended in await standstills(list))


async def standstills(pids: Callable[[], list[int]]) -> list[tuple[float, float]]:
    """Watch until the machine has stood still."""
    watched = machine.Machine(pids, epoch_ms)
    watching = asyncio.create_task(watched.run())
    await eventually(lambda: watched.standstills)
    watching.cancel()
    await asyncio.wait([watching])
    return watched.standstills


def test_standstills_that_overlap_count_once() -> None:
    assert Causes(standstills=[(100, 300), (50, 200), (250, 260), (400, 500)]).stood_still_for == 350


def test_the_kernel_reports_the_wait_for_a_processor() -> None:
    assert machine.waited_for_processor(os.getpid()) >= 0
    assert machine.waited_for_processor(2**22 + 1) == 0
