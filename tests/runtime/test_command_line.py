"""How a program ends: its exit status, and its error line if a package of an optional extra is not installed."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def run(body: str, redirections: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program whose `main` has this body, with a shell's redirections, and return the ended process."""
    code = (
        f"from runtime.command_line import run_and_exit\ndef main(words): {body}\nrun_and_exit(main, program='sidecar')"
    )
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-c", code]
    return subprocess.run(command, text=True, check=False, cwd=ROOT, **(pipes | options))


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


@pytest.mark.parametrize(
    "file",
    [path.relative_to(ROOT) for path in sorted(ROOT.glob("ops/*/__main__.py"))] + [Path("bench/report.py")],
    ids=str,
)
def test_every_other_program_of_the_checkout_escapes_what_the_terminal_cannot_print(file: Path) -> None:
    assert "    prepare_streams()\n" in (ROOT / file).read_text()


def test_a_closed_pipe_exits_with_1_without_a_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = run("print('text'); return 0", stdout=writer)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, "")


@pytest.mark.parametrize(
    ("redirections", "output", "errors"),
    [(">&-", "", "why"), ("2>&-", "text\n", ""), ("<&-", "text\n", "why"), ("<&- >&- 2>&-", "", "")],
)
def test_a_closed_standard_stream_changes_nothing_else(redirections: str, output: str, errors: str) -> None:
    ended = run("import sys; print('text'); sys.stderr.write('why'); return 3", redirections)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, output, errors)


def test_a_closed_standard_stream_does_not_give_its_descriptor_to_a_connection() -> None:
    ended = run("import socket; return socket.socket().fileno()", "<&- >&- 2>&-")
    assert ended.returncode > 2
