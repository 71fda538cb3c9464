"""A short soak with planted faults, as `python -m bench.soak` starts it, and its wrong arguments."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.report import Report
from bench.soak.planted import LEAD, PLANTS
from tests.support.processes import ROOT


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_soak_finds_every_planted_fault(tmp_path: Path) -> None:
    """The rules about growth, lost terms and quiet logs can fail."""
    plants = [word for plant in (*PLANTS, LEAD) for word in ("--plant", plant)]
    status, output = soak(
        "--minutes=1", *plants, "--folder", str(tmp_path / "run"), "--json", str(tmp_path / "soak.json")
    )
    assert status == 1, output
    broken = [line for line in output.splitlines() if line.startswith("BROKEN  ")]
    for measure in ("memory", "descriptors", "tasks", "threads"):
        assert any(f"sidecar: {measure} grew by" in line for line in broken), output
        assert not any(f"api: {measure} grew by" in line for line in broken), output
        assert (tmp_path / f"soak-{measure}.svg").read_text().startswith("<?xml"), output
    assert any(" lost term " in line and line.endswith(" without a release") for line in broken), output
    assert any(" ended without a cause" in line for line in broken), output
    assert any("the log is not quiet" in line and "a planted warning" in line for line in broken), output
    report = Report.from_json((tmp_path / "soak.json").read_text())
    assert [plot.name for plot in report.plots] == ["soak-memory", "soak-descriptors", "soak-tasks", "soak-threads"]
    assert {"redis", "task1 sidecar", "task2 api", "task3 sidecar"} <= report.plots[0].series.keys()


@pytest.mark.parametrize(
    "wrong",
    [["--minutes", "0"], ["--minutes", "nan"], ["--minutes", "long"], ["--plant", "peace"]],
)
def test_wrong_arguments_are_one_line(wrong: list[str]) -> None:
    status, output = soak(*wrong)
    assert status == 2
    assert wrong[1] in output
    assert len(output.splitlines()) == 1


def test_a_folder_with_other_files_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("the only copy")
    status, output = soak("--folder", str(tmp_path))
    assert status == 2
    assert output == f"soak: {tmp_path} is not empty, and is not the folder of an earlier run\n"
    assert (tmp_path / "thesis.txt").exists()


def soak(*arguments: str) -> tuple[int, str]:
    """Run a soak; return the exit status and the output."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.soak", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as run:
        try:
            output, _ = run.communicate(timeout=280)
        except BaseException:
            os.killpg(run.pid, signal.SIGKILL)  # its child processes also die
            raise
    return run.returncode, output
