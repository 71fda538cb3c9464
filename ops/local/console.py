"""The screen and the log files.

The whole output of a container goes to its log file; the screen shows the notable lines.
"""

import re
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, TextIO

QUIET_FOR = 30.0
"""Seconds for which a similar log line of the same container is not shown again."""

WIDEST = 160
"""Characters of a log line that the screen shows; the file has the whole line."""

_LEVEL = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b")
_TIME = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z? ")
_DIGITS = re.compile(r"[0-9a-f]{8,}|\d+")
_COLOURS = {"event": "36", "leader": "1;32", "warning": "33", "error": "31", "title": "1", "dim": "2"}


class Notable:
    """Picks the log lines of one container for the screen: warnings and errors, without repetitions."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rest = b""
        self._shown: dict[str, float] = {}
        self._hushed: dict[str, int] = {}

    def pick(self, chunk: bytes) -> list[tuple[str, str]]:
        """Return the (level, line) of each notable line that `chunk` completes."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        self._rest = self._rest[-10_000:]
        picked = []
        for raw in lines:
            line = raw.decode(errors="replace").rstrip()
            line = _TIME.sub("", line)
            found = _LEVEL.search(line, 0, 60)
            if found is None or line[:1].isspace():
                continue
            kind = _DIGITS.sub("#", line)
            now = self._clock()
            if now - self._shown.get(kind, -QUIET_FOR) < QUIET_FOR:
                self._hushed[kind] = self._hushed.get(kind, 0) + 1
                continue
            self._shown[kind] = now
            hushed = self._hushed.pop(kind, 0)
            picked.append((found[1].lower(), f"{line}{f'  (and {hushed} similar lines)' if hushed else ''}"))
        return picked


class Console:
    """The journal of all tasks: writes to the screen and to the log files.

    Args:
        stream: the screen.
        logs: the folder of the containers' log files.
        colours: use colours on the screen.
        closed: called when the screen can no longer be written to; nothing is written to the screen after this call.
    """

    def __init__(self, stream: TextIO, logs: Path, *, colours: bool, closed: Callable[[], None]) -> None:
        self.lost: OSError | None = None  # the error after which nothing is written to the screen
        self._stream: TextIO | None = stream
        self._logs = logs
        self._colours = colours
        self._closed = closed
        self._files: dict[str, BinaryIO | None] = {}
        self._notable: dict[str, Notable] = {}

    def say(self, text: str = "", *, tone: str = "") -> None:
        """Print one or more lines."""
        if self._stream is None:
            return
        try:
            print(self._painted(text, tone), file=self._stream, flush=True)
        except OSError as error:  # the reader of the pipe or the terminal has ended, or the disk of the file is full
            self.lost = error
            self._stream = None
            self._closed()

    def step(self, what: str, how: str) -> None:
        """Report a completed step of the start."""
        self.say(f"  {what:<12}{how}")

    def event(self, who: str, text: str, *, tone: str = "event") -> None:
        """Report an event with its time."""
        now = datetime.now().astimezone().strftime("%H:%M:%S")
        self.say(f"{self._painted(now, 'dim')}  {self._painted(f'{who:<19}', tone)} {text}")

    def output(self, who: str, chunk: bytes) -> None:
        """Write a container's output to its log file, and its notable lines to the screen."""
        self.log(who, chunk)
        for level, line in self._notable.setdefault(who, Notable()).pick(chunk):
            self.event(
                who,
                f"| {line if len(line) <= WIDEST else line[: WIDEST - 1] + '…'}",
                tone="warning" if level == "warning" else "error",
            )

    def open_logs(self, whose: Iterable[str]) -> None:
        """Create empty log files; OSError if a file cannot be written."""
        for who in whose:
            self._files[who] = self.log_path(who).open("wb", buffering=0)

    def log(self, who: str, text: bytes) -> None:
        """Append to the log file of a container, or of a step of the start; after an error, stop writing that file."""
        try:
            if who not in self._files:
                self.open_logs([who])
            if (file := self._files[who]) is not None:
                file.write(text)
        except OSError as error:
            if (broken := self._files.get(who)) is not None:
                broken.close()
            self._files[who] = None
            self.event(who, f"log file stops here: {self.log_path(who)}: {error.strerror}", tone="error")

    def log_path(self, who: str) -> Path:
        """The path of a log file; `task1/api` has `task1-api.log`."""
        return self._logs / f"{who.replace('/', '-')}.log"

    def close(self) -> None:
        """Close the log files."""
        for file in self._files.values():
            if file is not None:
                file.close()
        self._files.clear()

    def _painted(self, text: str, tone: str) -> str:
        return f"\x1b[{_COLOURS[tone]}m{text}\x1b[0m" if self._colours and tone else text
