"""How a program ends: the exit status, and the one line about a package that an install without extras lacks."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(body: str) -> subprocess.CompletedProcess[str]:
    """A program whose `main` has that body."""
    code = (
        f"from runtime.command_line import run_and_exit\ndef main(words): {body}\nrun_and_exit(main, program='sidecar')"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)


def test_the_status_is_that_of_main() -> None:
    assert run("return 3").returncode == 3


def test_a_package_that_is_not_installed_is_one_line_with_the_extra() -> None:
    ended = run("import no_such_package.part")
    assert ended.returncode == 2
    assert ended.stderr == "sidecar: no_such_package is not installed: pip install 'ecs-lease-sidecar[sidecar]'\n"


def test_a_module_of_ours_that_is_missing_is_a_fault_of_the_code() -> None:
    ended = run("import runtime.no_such_module")
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr


def test_ctrl_c_before_there_is_a_handler_ends_without_a_traceback() -> None:
    ended = run("raise KeyboardInterrupt")
    assert (ended.returncode, ended.stderr) == (130, "")
