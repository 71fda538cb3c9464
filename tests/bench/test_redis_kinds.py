"""The table of the kinds of Redis: its numbers, its goals, and rows of real runs."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.redis_kinds.__main__ import line
from bench.redis_kinds.servers import Event
from bench.redis_kinds.trial import Row, longest_gap
from tests.chaos.observers import Belief
from tests.chaos.schedule import Redis

ROOT = Path(__file__).parents[2]
ROW = Row(Redis.CLUSTER, Event.KILL, 6.0, without=2.0, bound=12.0, overlap=0.0, hand_overs=(0.004, 0.01))


def believed(began: float, until: float) -> Belief:
    return Belief("task1", "tracker", 1, "one", began, until)


def test_the_time_without_a_leader_is_the_longest_gap_between_all_beliefs() -> None:
    beliefs = [believed(9.0, 20.0), believed(5.0, 8.0), believed(0.0, 4.0), believed(19.0, 19.5)]
    assert longest_gap(beliefs, 1.0, 20.0) == 1.0
    assert longest_gap(beliefs, 1.0, 26.0) == 6.0, "no task leads at the end"
    assert longest_gap(beliefs, 4.5, 20.0) == 1.0
    assert longest_gap([], 3.0, 5.0) == 2.0


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        (ROW, "| 7 ms (10 ms) | 2.0 s (12 s) | 0 |"),
        (replace(ROW, without=0.0), "| 0, the leader stays (12 s) | 0 |"),
        (replace(ROW, overlap=0.25), "| 0.25 **GOAL MISSED** |"),
        (replace(ROW, without=12.1), "| 12.1 s (12 s) | 0 **GOAL MISSED** |"),
    ],
)
def test_a_line_shows_a_missed_goal(row: Row, shown: str) -> None:
    assert line(row).endswith(shown)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("guard", "status"), [("true", 0), ("false", 1)])
def test_a_late_demotion_has_two_believers_only_without_the_guard(guard: str, status: int) -> None:
    """The leader cannot reach the sentinels, and stays at the old primary while the other tasks use the new primary."""
    done = table("--kind=sentinels", "--event=unseen", "--ttl=6", FAILOVER_GUARD=guard)
    assert done.returncode == status, done.stderr + done.stdout
    assert ("GOAL MISSED" in done.stdout) == bool(status)
    assert "hand-over 9 of 9" in done.stderr


@pytest.mark.parametrize("wrong", [["--ttl", "0"], ["--kind", "file"], ["--event", "unseen", "--kind", "cluster"]])
def test_wrong_arguments_are_one_line(wrong: list[str]) -> None:
    done = table(*wrong)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def table(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench.redis_kinds", *arguments],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
