"""A short chaos run, as `make chaos` starts it: real tasks, real faults, a verdict and a picture."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(240)
def test_every_promise_is_kept_under_random_faults(tmp_path: Path) -> None:
    picture = tmp_path / "run.png"
    arguments = ["--minutes", "0.45", "--tasks", "3", "--ttl", "3", "--seed", "11"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("REDIS_", "DATABASE_"))}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.chaos", *arguments, "--folder", str(tmp_path / "run"), "--picture", str(picture)],
        cwd=ROOT,
        env=inherited,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as run:
        try:
            said, _ = run.communicate(timeout=200)
        except BaseException:
            os.killpg(run.pid, signal.SIGKILL)  # what it started dies with it
            raise
    assert run.returncode == 0, said
    assert "VERDICT: every promise was kept." in said
    assert said.count(" leads (token ") >= 4, said
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    "wrong",
    [["--tasks", "1"], ["--minutes", "0"], ["--services", "9"], ["--picture", "/no/x.svg"], ["--picture", "x.gif"]],
)
def test_wrong_arguments_are_told_in_one_line(wrong: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *wrong], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert wrong[0] in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
