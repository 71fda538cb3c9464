"""A program in a pseudo-terminal, and the screen that a person sees there."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from tests.support.processes import ROOT, clean_environment

LIMIT = 30.0
"""Limit for the program to end, in seconds."""

_PIECE = re.compile(r"\x1b\[\?(\d+)([hl])|\x1b\[([HKJ])|(\r)|(\n)|([^\x1b\r\n]+)|(\x1b)")
_START = "import os, fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable, sys.argv[1:])"
"""Program that makes its standard input the controlling terminal of its session, as under a shell."""


class Screens:
    """The two screens of a terminal, as far as the commands use them; anything else is an error."""

    def __init__(self) -> None:
        self.is_second = False
        self.has_cursor = True
        self.widest = 0
        """Columns of the widest line that was ever written on the second screen."""
        self._screens: dict[bool, list[str]] = {False: [""], True: [""]}
        self._row = {False: 0, True: 0}
        self._column = 0

    @property
    def lines(self) -> list[str]:
        """The lines of the screen that is shown."""
        return self._screens[self.is_second]

    def write(self, text: str) -> None:
        """Show what the program has written."""
        for mode, switch, order, back, down, plain, unknown in _PIECE.findall(text):
            assert not unknown, f"unknown control sequence in {text!r}"
            if mode == "1049":
                self.is_second, self._column = switch == "h", 0
                if switch == "h":
                    self._screens[True], self._row[True] = [""], 0
            elif mode == "25":
                self.has_cursor = switch == "h"
            elif order == "H":
                self._row[self.is_second] = self._column = 0
            elif order == "K":
                self._put(self.lines[self._row[self.is_second]][: self._column])
            elif order == "J":
                del self.lines[self._row[self.is_second] + 1 :]
                self._put(self.lines[self._row[self.is_second]][: self._column])
            elif back:
                self._column = 0
            elif down:
                self._row[self.is_second] += 1
                if self._row[self.is_second] == len(self.lines):
                    self.lines.append("")
            else:
                line = self.lines[self._row[self.is_second]].ljust(self._column)
                self._put(line[: self._column] + plain + line[self._column + len(plain) :])
                self._column += len(plain)
                self.widest = max(self.widest, self._column) if self.is_second else self.widest

    def _put(self, line: str) -> None:
        self.lines[self._row[self.is_second]] = line


class Terminal:
    """A program, such as `python -m sidecar watch`, with a terminal for its input and its outputs."""

    def __init__(
        self, words: Sequence[str], environment: Mapping[str, str], *, columns: int = 80, lines: int = 24
    ) -> None:
        self._ours, self._theirs = pty.openpty()
        self.resize(columns, lines)
        self.output = ""
        """All output of the program."""
        self.screens = Screens()
        environment = clean_environment(**{"TERM": "xterm", **environment})
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, sys.executable, *words], cwd=ROOT, env=environment, stdin=self._theirs,
            stdout=self._theirs, stderr=self._theirs, start_new_session=True,
        )  # fmt: skip
        os.close(self._theirs)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(LIMIT)
        os.close(self._ours)

    @property
    def shown(self) -> str:
        """The screen that a person sees now."""
        return "\n".join(self.screens.lines)

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size; the program gets SIGWINCH."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        r"""Type keys; `\x03` is Ctrl-C, and `\x1a` Ctrl-Z."""
        os.write(self._ours, keys.encode())

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def status(self) -> int:
        """Wait for the end, and return the exit status."""
        status = self.process.wait(LIMIT)
        self._reader.join(LIMIT)
        return status

    def _read(self) -> None:
        rest = b""
        while True:
            try:
                piece = os.read(self._ours, 65_536)
            except OSError:  # the program has closed the terminal
                return
            text = (rest + piece).decode(errors="ignore")
            rest = (rest + piece)[len(text.encode()) :]
            complete = re.sub(r"\x1b(\[\??\d*)?$", "", text)
            rest = text[len(complete) :].encode() + rest
            self.output += complete
            self.screens.write(complete)
