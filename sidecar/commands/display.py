"""Where `python -m sidecar watch` shows the leases: a terminal's screen, or the lines of a pipe or a file."""

import os
import signal
from contextlib import suppress
from typing import Protocol, TextIO

from sidecar.commands.layout import COLUMNS, Layout
from sidecar.commands.report import to_json
from sidecar.commands.view import Change, View

_ENTER = "\x1b[?1049h\x1b[?25l"
"""Control sequences that show the terminal's alternate screen and hide the cursor."""
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_UNKNOWN_SIZE = os.terminal_size((COLUMNS, 24))
"""Size for a terminal that does not report its size."""


class Display(Protocol):
    """Shows a view."""

    tick: float | None
    """Seconds after which a view is shown again even if nothing has changed; None for never."""

    def report(self, change: Change) -> None:
        """Show a change."""

    def show(self, view: View) -> None:
        """Show the view as it is now."""

    def close(self, view: View) -> None:
        """Restore the output for the program that writes next."""


class Lines:
    """One line for each change.

    Args:
        stream: the output.
        as_json: whether each line is a JSON object.
    """

    tick: float | None = None

    def __init__(self, stream: TextIO, *, as_json: bool) -> None:
        self._stream = stream
        self._as_json = as_json

    def report(self, change: Change) -> None:
        """Write the change.

        Raises:
            BrokenPipeError: the reader has closed the pipe.
        """
        self._stream.write(f"{to_json(change.answer) if self._as_json else change.line}\n")
        self._stream.flush()

    def show(self, view: View) -> None:
        """Do nothing: only changes are shown."""

    def close(self, view: View) -> None:
        """Do nothing: there is nothing to restore."""


class Screen:
    """A table on the alternate screen of a terminal. At the end the main screen shows the last table.

    Args:
        stream: the terminal.
    """

    tick: float | None = 1.0

    def __init__(self, stream: TextIO) -> None:
        self._terminal = stream.fileno()
        self._encoding = stream.encoding or "ascii"
        self._is_entered = False

    def report(self, change: Change) -> None:
        """Do nothing: the view shows the last changes."""

    def show(self, view: View) -> None:
        """Draw the view over the previous one.

        Each line is cleared only when its new text is written, so nothing flickers.
        """
        layout, lines = self._layout()
        *before, last = view.picture(layout, lines)
        text = "".join(f"{_CLEAR_LINE}{line}\r\n" for line in before)
        self._write(f"{'' if self._is_entered else _ENTER}{_HOME}{text}{_CLEAR_BELOW}{last}")
        self._is_entered = True

    def close(self, view: View) -> None:
        """Restore the main screen, and leave the last table there."""
        if not self._is_entered:
            return
        self._leave()
        layout, _ = self._layout()
        self._write("".join(f"{line}\n" for line in view.table(layout)))

    def suspend(self) -> None:
        """Restore the main screen, and stop as Ctrl-Z does; a later `show` enters the alternate screen again."""
        self._leave()
        os.kill(os.getpid(), signal.SIGSTOP)

    def _leave(self) -> None:
        self._write(_LEAVE)
        self._is_entered = False

    def _layout(self) -> tuple[Layout, int]:
        """The layout of a line, and the number of lines."""
        try:
            size = os.get_terminal_size(self._terminal)
        except OSError:
            size = _UNKNOWN_SIZE
        columns, lines = size.columns or _UNKNOWN_SIZE.columns, size.lines or _UNKNOWN_SIZE.lines
        return Layout(min(columns, COLUMNS), self._encoding), lines

    def _write(self, text: str) -> None:
        """Write without Python's buffer, whose flush at the exit would fail again if the terminal is closed."""
        rest = text.encode(self._encoding, "backslashreplace")
        with suppress(OSError):
            while rest:
                rest = rest[os.write(self._terminal, rest) :]


def display_for(stream: TextIO, *, as_json: bool, term: str) -> Display:
    """A screen if the output is a terminal that supports one, else lines.

    Args:
        stream: the output.
        as_json: whether the reader is a program.
        term: the terminal's type, TERM.
    """
    if as_json or term == "dumb" or not stream.isatty():
        return Lines(stream, as_json=as_json)
    return Screen(stream)
