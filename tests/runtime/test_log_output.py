"""The log never stops the process: not while nobody reads it, and not if it cannot be written."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime import log_output
from runtime.log_output import LogOutput
from tests.support.outputs import FullPipe, full_pipe, output
from tests.support.processes import ROOT

LATE = 30.0
"""Limit for the end of a process on a busy machine, in seconds."""
SETUP = """
import logging, resource, sys
from runtime.command_line import run_and_exit
from runtime.logs import log_to_stdout
from service.commands.output import print_line
log = logging.getLogger("some")
def main(_):
    log_to_stdout("text", "INFO")
"""


@pytest.fixture
def pipe() -> Iterator[FullPipe]:
    with full_pipe() as pipe:
        yield pipe


def log_to(descriptor: int) -> tuple[logging.Logger, LogOutput]:
    """A logger that writes only the messages, to a copy of this descriptor; and its handler."""
    stream = os.fdopen(os.dup(descriptor), "w", encoding="utf-8")
    log = logging.Logger("some")  # noqa: LOG001 - this test needs its own logger
    handler = LogOutput(stream, "standard output")
    log.addHandler(handler)
    return log, handler


@contextmanager
def started(body: str, stdout: int) -> Iterator[subprocess.Popen[str]]:
    """Start a program that sets up its log and has this body; kill it at the end of the block."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    command = [sys.executable, "-c", f"{SETUP}{lines}    return 0\nrun_and_exit(main, program='some')"]
    with subprocess.Popen(command, cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(body: str, stdout: int = subprocess.PIPE) -> tuple[int, str, str]:
    """Run a program as `started` does, until its end; returns its exit status, its output and its errors."""
    with started(body, stdout) as process:
        printed, errors = process.communicate(timeout=LATE)
    return process.returncode, printed or "", errors


@pytest.mark.parametrize("blocking", [True, False])
def test_lines_wait_in_order_for_a_reader_while_the_caller_continues(pipe: FullPipe, blocking: bool) -> None:
    os.set_blocking(pipe.writer, blocking)
    log, _ = log_to(pipe.writer)
    changed = ["before"]
    log.info("%s", changed)
    changed[0] = "after"
    lines = [f"{number} {'x' * (20_000 if number == 7 else 10)}" for number in range(300)]
    for line in lines:
        log.info(line)
    written = pipe.read(b"\n299 xxxxxxxxxx\n").decode()
    assert written.splitlines() == ["['before']", *lines]
    log.info("at once")
    assert pipe.read(b"\n") == b"at once\n"


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("length", [50, 3000])
def test_a_terminal_that_nobody_reads_does_not_delay_the_caller(blocking: bool, length: int) -> None:
    terminal, descriptor = os.openpty()
    os.set_blocking(descriptor, blocking)
    lines = [f"{number} {'x' * length}" for number in range(300)]
    try:
        log, _ = log_to(descriptor)
        for line in lines:
            log.info(line)
        shown = bytearray()
        while not shown.endswith(f"{lines[-1]}\r\n".encode()):
            shown += os.read(terminal, 1 << 16)
    finally:
        os.close(descriptor)
    assert shown.decode().splitlines() == lines
    os.close(terminal)


@pytest.mark.parametrize("reaction", ["raise Interrupted", "log.info('within')"])
def test_a_signal_handler_that_raises_or_logs_in_the_middle_of_a_line_leaves_a_log_that_works(reaction: str) -> None:
    body = f"""\
import signal
class Interrupted(BaseException): pass
times = 0
def handle(_, frame):
    nonlocal times
    while frame and not frame.f_code.co_filename.endswith("log_output.py"): frame = frame.f_back
    if frame and times < 20:
        times += 1
        {reaction}
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
while times < 20:
    try: log.info("some")
    except Interrupted: pass
signal.setitimer(signal.ITIMER_REAL, 0, 0)
logging.getLogger().handlers[0].flush()
log.info("later")"""
    status, printed, errors = ended(body)
    assert (status, errors) == (0, "")
    assert printed.splitlines()[-1].endswith("INFO    later")
    assert printed.count("within") == (20 if "within" in reaction else 0)


def test_lines_beyond_the_limit_are_lost_and_a_line_counts_them(
    pipe: FullPipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_output, "KEPT", 1000)
    log, _ = log_to(pipe.writer)
    for number in range(150):
        log.info("%09d", number)
    *kept, loss = pipe.read(b"lost: standard output was blocked\n").decode().splitlines()
    assert kept == [f"{number:09}" for number in range(100)]
    assert loss == "50 log lines were lost: standard output was blocked"
    log.info("later")
    assert pipe.read(b"\n") == b"later\n"


def test_a_full_disk_is_reported_once_and_the_lost_lines_are_counted_when_it_has_room(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with output("full disk") as full:
        log, handler = log_to(full)
    log.info("first")
    log.info("second")
    handler.flush()
    assert capfd.readouterr() == ("", "the log cannot be written to standard output: No space left on device\n")
    with (tmp_path / "log").open("wb") as file:
        os.dup2(file.fileno(), handler._stream.fileno())
    log.info("third")
    handler.flush()
    expected = "2 log lines were lost: standard output: No space left on device\nthird\n"
    assert (tmp_path / "log").read_text() == expected


def test_a_line_that_a_full_disk_cuts_does_not_spoil_the_next_line(tmp_path: Path) -> None:
    body = """\
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
log.info("x" * 200)
logging.getLogger().handlers[0].flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.info("later")"""
    with (tmp_path / "log").open("wb") as file:
        _, _, errors = ended(body, file.fileno())
    assert errors == "the log cannot be written to standard output: File too large\n"
    cut, loss, later = (tmp_path / "log").read_text().splitlines()
    assert len(cut) == 100
    assert re.search(
        "WARNING 1 log lines were lost: standard output: File too large event=log_lines_lost lines=1", loss
    )
    assert later.endswith("INFO    later")


def test_a_line_that_is_logged_while_another_is_formatted_is_written(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        log, handler = log_to(file.fileno())

        class Logs:
            def __str__(self) -> str:
                log.info("within")
                return "around"

        log.info("%s", Logs())
        handler.flush()
    assert sorted((tmp_path / "log").read_text().splitlines()) == ["around", "within"]


def test_what_a_command_prints_and_logs_keeps_its_order() -> None:
    body = "print_line('one')\nlog.info('two')\nprint_line('three')\nlog.info('four')"
    _, printed, _ = ended(body)
    assert [line.split()[-1] for line in printed.splitlines()] == ["one", "two", "three", "four"]


@pytest.mark.parametrize("end", ["sys.exit(3)", "1 / 0"])
def test_what_was_logged_before_an_exit_or_an_uncaught_error_is_written(end: str) -> None:
    _, printed, _ = ended(f"for number in range(1000): log.info('text %d', number)\n{end}")
    assert [line.rpartition("text ")[2] for line in printed.splitlines()] == [str(number) for number in range(1000)]


@pytest.mark.parametrize("kind", ["unread", "closed", "full disk"])
def test_a_process_ends_with_its_own_status_although_its_log_cannot_be_written(kind: str) -> None:
    with output(kind) as descriptor:
        status, _, errors = ended("for _ in range(10): log.info('text')", descriptor)
    assert status == 0
    assert errors.count("\n") == (0 if kind == "unread" else 1)


def test_a_reader_that_comes_late_gets_the_last_lines_of_a_process(pipe: FullPipe) -> None:
    body = (
        f"import runtime.log_output, threading\nruntime.log_output.END = {LATE}\n"
        "for number in range(1000): log.info('text %d', number)\n"
        "wait = threading.Event.wait\n"
        "def reported(*values):\n"
        "    sys.stderr.write('waits\\n')\n"
        "    return wait(*values)\n"
        "threading.Event.wait = reported"
    )
    with started(body, pipe.writer) as process:
        pipe.close_writer()
        assert process.stderr is not None
        process.stderr.readline()  # the reader comes after the start of the wait, or after the end of the process
        written = pipe.read().decode().splitlines()
        assert process.wait(LATE) == 0
    assert [line.rpartition("text ")[2] for line in written] == [str(number) for number in range(1000)]
