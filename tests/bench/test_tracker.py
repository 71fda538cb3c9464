"""The benchmark of the tracker: a whole run of the smallest size, and its command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.report import Report
from bench.tracker.quota import NoQuotaError, half_a_core

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_run_prints_and_writes_every_table(tmp_path: Path) -> None:
    file = tmp_path / "tracker.json"
    done = tracker("10000", "--json", str(file))
    assert done.returncode == 0, done.stderr
    report = Report.from_json(file.read_text())
    assert report.terminal() in done.stdout
    limit, parts, steps, work = report.tables
    assert [row[0] for row in limit.rows][:1] == ["10,000 portfolios, whole machine"]
    assert len(limit.rows) == 2 or "Half a core was not measured: cgroups:" in limit.note
    assert sum(float(share.rstrip("%")) for _, _, share in parts.rows) == pytest.approx(100, abs=10)
    assert len(steps.rows) == 7
    assert [row[0] for row in work.rows][2] == "10,000 portfolios: EOD, median of 3"
    assert "Traceback" not in done.stderr
    assert "goal" in done.stdout


@pytest.mark.parametrize("wrong", [["9999"], ["many"], ["10000", "-1"], ["--yaml", "file"]])
def test_wrong_arguments_are_one_line(wrong: list[str]) -> None:
    done = tracker(*wrong)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert wrong[-1] in done.stderr or wrong[0] in done.stderr


def test_the_limit_of_half_a_core_ends_with_its_block() -> None:
    before = Path("/proc/self/cgroup").read_text()
    try:
        with half_a_core():
            assert f"bench-{os.getpid()}" in Path("/proc/self/cgroup").read_text()
    except NoQuotaError as error:
        assert "cgroups" in str(error)
    assert Path("/proc/self/cgroup").read_text() == before


def tracker(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.tracker", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
