"""A short chaos run, as `make chaos` starts it: real tasks, real faults, a verdict and a picture."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.fleet import Fleet

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_promise_is_kept_under_random_faults(tmp_path: Path) -> None:
    picture = tmp_path / "run.png"
    status, said = chaos(
        tmp_path, "--minutes=0.45", "--tasks=3", "--services=1", "--seed=11", "--picture", str(picture)
    )
    assert status == 0, said
    assert "VERDICT: every promise was kept." in said
    assert said.count(" leads (token ") >= 4, said
    assert sum(map(int, re.findall(r"(\d+) stale writes refused", said))) > 0, "no stale write was attempted\n" + said
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_run_without_the_fence_reports_a_stale_write(tmp_path: Path) -> None:
    """If the verdict could not fail, a good verdict would prove nothing."""
    status, said = chaos(tmp_path, "--minutes=0.1", "--tasks=2", "--services=0", "--seed=1", "--without-fence")
    assert status == 1, said
    assert "promise 1 is broken" in said
    assert "  stale write: " in said


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("redis", "fault"), [("cluster", "zone outage"), ("sentinels", "unseen failover")])
def test_a_run_without_the_failover_guard_reports_two_believers(tmp_path: Path, redis: str, fault: str) -> None:
    """In the cluster the failover loses a write. With sentinels the old primary still serves the old leader."""
    arguments = "--ttl=6", "--minutes=0.4", "--tasks=3", "--services=0", "--seed=3"
    status, said = chaos(tmp_path, "--redis", redis, "--only", fault, *arguments, FAILOVER_GUARD="false")
    assert status == 1, said
    assert "promise 2 is broken" in said
    assert "  two believers: " in said


def test_a_replacement_task_runs_the_version_that_its_predecessor_did_not_run(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(ROOT / "task-definition.json", other)
    fleet = Fleet(tmp_path / "run", tasks=2, ttl=6.0, services=2, other_version=other)
    starts = [fleet._new_task(label) for label in ("task1", "task2", "task1", "task2")]
    fleet.log.close()
    assert [task.containers["sidecar"].folder for task in starts] == [ROOT, other, other, ROOT]


def chaos(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run chaos, by default with a lease of 3 s; returns the exit status and the output."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("REDIS_", "DATABASE_"))}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.chaos", "--ttl=3", *arguments, "--folder", str(folder / "run")],
        cwd=ROOT,
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as run:
        try:
            said, _ = run.communicate(timeout=200)
        except BaseException:
            os.killpg(run.pid, signal.SIGKILL)  # this also kills its child processes
            raise
    return run.returncode, said


@pytest.mark.parametrize(
    "wrong",
    [
        ["--tasks", "1"],
        ["--minutes", "0"],
        ["--services", "9"],
        ["--picture", "/no/x.svg"],
        ["--picture", "x.gif"],
        ["--other-version", "/no"],
        ["--redis", "memcached"],
        ["--isolating", "--redis", "cluster"],
        ["--only", "slot migration"],
    ],
)
def test_wrong_arguments_are_reported_in_one_line(wrong: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *wrong], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert wrong[0] in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
