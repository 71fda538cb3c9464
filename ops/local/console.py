"""What the user sees. Everything a container writes goes to its log file; the screen shows what matters."""

import re
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, TextIO

QUIET_FOR = 30.0
"""For how long, in seconds, a log line that has been shown is not shown again for the same container."""

WIDEST = 160
"""How much of a log line is shown; all of it is in the file."""

_LEVEL = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b")
_TIME = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z? ")
_DIGITS = re.compile(r"[0-9a-f]{8,}|\d+")
_COLOURS = {"event": "36", "leader": "1;32", "warning": "33", "error": "31", "title": "1", "dim": "2"}


class Notable:
    """Picks the log lines of one container that belong on the screen: warnings and worse, each once in a while."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rest = b""
        self._shown: dict[str, float] = {}
        self._hushed: dict[str, int] = {}

    def pick(self, chunk: bytes) -> list[tuple[str, str]]:
        """The (level, line) of those that `chunk` completes."""
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
            picked.append((found[1].lower(), f"{line}{f'  (and {hushed} more like it)' if hushed else ''}"))
        return picked


class Console:
    """The screen and the log files; the journal of every task.

    Args:
        stream: the screen.
        logs: the folder of the containers' log files.
        colours: whether to use them.
        closed: is called when the screen is gone; nothing is written to it after that.
    """

    def __init__(self, stream: TextIO, logs: Path, *, colours: bool, closed: Callable[[], None]) -> None:
        self._stream: TextIO | None = stream
        self._logs = logs
        self._colours = colours
        self._closed = closed
        self._files: dict[str, BinaryIO | None] = {}
        self._notable: dict[str, Notable] = {}

    def say(self, text: str = "", *, tone: str = "") -> None:
        """One line, or several."""
        if self._stream is None:
            return
        try:
            print(self._painted(text, tone), file=self._stream, flush=True)
        except OSError:  # the reader of a pipe has gone, or the terminal
            self._stream = None
            self._closed()

    def step(self, what: str, how: str) -> None:
        """Something of the start is done."""
        self.say(f"  {what:<12}{how}")

    def event(self, who: str, text: str, *, tone: str = "event") -> None:
        """Something happened."""
        now = datetime.now().astimezone().strftime("%H:%M:%S")
        self.say(f"{self._painted(now, 'dim')}  {self._painted(f'{who:<19}', tone)} {text}")

    def output(self, who: str, chunk: bytes) -> None:
        """A container wrote something: all of it to its file, what is notable to the screen."""
        self.log(who, chunk)
        for level, line in self._notable.setdefault(who, Notable()).pick(chunk):
            self.event(
                who,
                f"| {line if len(line) <= WIDEST else line[: WIDEST - 1] + '…'}",
                tone="warning" if level == "warning" else "error",
            )

    def open_logs(self, whose: Iterable[str]) -> None:
        """Make log files anew; OSError if one of them cannot be written."""
        for who in whose:
            self._files[who] = self.log_path(who).open("wb", buffering=0)

    def log(self, who: str, text: bytes) -> None:
        """Add to the log file of a container (or of a step of the start); after trouble with it go on without it."""
        try:
            if who not in self._files:
                self.open_logs([who])
            if (file := self._files[who]) is not None:
                file.write(text)
        except OSError as error:
            if (broken := self._files.get(who)) is not None:
                broken.close()
            self._files[who] = None
            self.event(who, f"has no log from here on: {self.log_path(who)}: {error.strerror}", tone="error")

    def log_path(self, who: str) -> Path:
        """Where the log of `task1/api` is: `task1-api.log`."""
        return self._logs / f"{who.replace('/', '-')}.log"

    def close(self) -> None:
        """Close the log files."""
        for file in self._files.values():
            if file is not None:
                file.close()
        self._files.clear()

    def _painted(self, text: str, tone: str) -> str:
        return f"\x1b[{_COLOURS[tone]}m{text}\x1b[0m" if self._colours and tone else text
