"""The exit of a command line program."""

import os
import subprocess
import sys

import pytest

PROGRAM = (
    "from runtime.command_line import run_and_exit\ndef main(words):\n    {}\nrun_and_exit(main, program='sidecar')"
)


@pytest.mark.parametrize(
    ("body", "status", "output"),
    [
        ("print(words); return 3", 3, "['a', 'b']\n"),
        ("raise KeyboardInterrupt", 130, ""),
        (r"print('\u00e9'); return 0", 0, "\\xe9\n"),
    ],
    ids=["status", "Ctrl-C", "ASCII"],
)
def test_the_process_exits_with_the_status_and_prints_in_ascii(body: str, status: int, output: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", PROGRAM.format(body), "a", "b"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (status, output, "")


def test_a_closed_pipe_is_status_one_without_a_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    program = PROGRAM.format("print('text'); return 0")
    done = subprocess.run([sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_package_that_is_not_installed_is_one_line_with_the_extra() -> None:
    done = run("import no_such_package.part")
    assert done.returncode == 2
    assert done.stderr == "sidecar: no_such_package is not installed: pip install 'ecs-lease-sidecar[sidecar]'\n"


def test_a_missing_module_of_the_project_is_a_traceback() -> None:
    done = run("import runtime.no_such_module")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def run(body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PROGRAM.format(body)], capture_output=True, text=True, check=False)
