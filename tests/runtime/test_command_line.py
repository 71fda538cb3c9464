"""How a program ends: its exit status, and its error line if a package of an optional extra is not installed."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def run(body: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program whose `main` has this body, and return the ended process."""
    code = (
        f"from runtime.command_line import run_and_exit\ndef main(words): {body}\nrun_and_exit(main, program='sidecar')"
    )
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run([sys.executable, "-c", code], text=True, check=False, cwd=ROOT, **(pipes | options))


def test_the_exit_status_is_the_result_of_main() -> None:
    assert run("return 3").returncode == 3


def test_a_missing_package_is_a_one_line_error_that_names_the_extra() -> None:
    ended = run("import no_such_package.part")
    assert ended.returncode == 2
    assert ended.stderr == "sidecar: no_such_package is not installed: pip install 'ecs-lease-sidecar[sidecar]'\n"


def test_a_missing_module_of_the_project_raises_a_traceback() -> None:
    ended = run("import runtime.no_such_module")
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr


def test_ctrl_c_before_a_handler_is_installed_prints_no_traceback() -> None:
    ended = run("raise KeyboardInterrupt")
    assert (ended.returncode, ended.stderr) == (130, "")


def test_a_character_that_the_terminal_cannot_print_is_escaped() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = run(r"print('\u00e9'); return 0", env=environment)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "\\xe9\n", "")


def test_a_closed_pipe_exits_with_1_without_a_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = run("print('text'); return 0", stdout=writer)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, "")
