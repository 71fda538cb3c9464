"""The console of `make run`: the screen shows only warnings and events, and the log files are complete."""

import io
from pathlib import Path

from ops.local.console import QUIET_FOR, WIDEST, Console, Notable


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_warnings_and_errors_are_shown_without_their_time() -> None:
    notable = Notable(Clock())
    chunk = b"2026-11-23T16:43:46.823Z INFO    all is well\n2026-11-23T16:43:46.9Z WARNING not so well lease=x\n"
    assert notable.pick(chunk) == [("warning", "WARNING not so well lease=x")]


def test_a_word_late_in_a_line_does_not_count_as_a_level() -> None:
    assert Notable(Clock()).pick(b"INFO  " + b"x" * 60 + b" ERROR\n") == []


def test_lines_are_assembled_from_chunks() -> None:
    notable = Notable(Clock())
    assert notable.pick(b"ERROR one ") == []
    assert notable.pick(b"line\nERR") == [("error", "ERROR one line")]


def test_a_traceback_stays_in_the_file() -> None:
    chunk = b"ERROR it broke\nTraceback (most recent call last):\n  File x\n    raise ERROR\nValueError: no\n"
    assert Notable(Clock()).pick(chunk) == [("error", "ERROR it broke")]


def test_a_repeated_line_is_shown_now_and_then_with_a_count() -> None:
    clock = Clock()
    notable = Notable(clock)
    assert len(notable.pick(b"ERROR attempt 1 failed\nERROR attempt 2 failed\nERROR attempt 3 failed\n")) == 1
    clock.now = QUIET_FOR + 1
    assert notable.pick(b"ERROR attempt 4 failed\n") == [("error", "ERROR attempt 4 failed  (and 2 similar lines)")]


def test_all_output_goes_to_the_file_and_a_long_line_is_truncated_on_the_screen(tmp_path: Path) -> None:
    screen = io.StringIO()
    console = Console(screen, tmp_path, colours=False, closed=lambda: None)
    long = b"ERROR " + b"x" * 500 + b"\n"
    console.output("task1/api", b"INFO hello\n" + long)
    console.close()
    assert (tmp_path / "task1-api.log").read_bytes() == b"INFO hello\n" + long
    (line,) = screen.getvalue().splitlines()
    assert "task1/api" in line
    assert line.endswith("x…")
    assert len(line) < WIDEST + 40


def test_a_full_disk_is_reported_once_and_the_screen_continues(tmp_path: Path) -> None:
    screen = io.StringIO()
    console = Console(screen, tmp_path, colours=False, closed=lambda: None)
    full = tmp_path / "task1-api.log"
    full.symlink_to("/dev/full")
    console.output("task1/api", b"INFO one\n")
    console.output("task1/api", b"ERROR two\n")
    console.output("task2/api", b"INFO three\n")
    console.close()
    notice, error = screen.getvalue().splitlines()
    assert notice.endswith(f"task1/api           log file stops here: {full}: No space left on device")
    assert error.endswith("| ERROR two")
    assert (tmp_path / "task2-api.log").read_bytes() == b"INFO three\n"


def test_only_a_terminal_gets_colours(tmp_path: Path) -> None:
    for colours in (True, False):
        screen = io.StringIO()
        Console(screen, tmp_path, colours=colours, closed=lambda: None).event("task1", "is here")
        assert ("\x1b[" in screen.getvalue()) is colours


def test_a_closed_screen_stops_the_run_without_an_error(tmp_path: Path) -> None:
    class Gone(io.StringIO):
        def write(self, text: str, /) -> int:
            raise BrokenPipeError

    closed: list[bool] = []
    console = Console(Gone(), tmp_path, colours=False, closed=lambda: closed.append(True))
    console.say("hello")
    console.say("again")
    assert closed == [True]
    assert isinstance(console.lost, BrokenPipeError)
