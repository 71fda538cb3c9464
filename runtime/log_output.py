"""The output of a log. The process never waits for the reader of its log, except for a moment at its end."""

import atexit
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

KEPT = 1 << 20
"""Limit of the lines that wait for the reader, in bytes; a typical line has 200 bytes."""
END = 1.0
"""Longest wait for the reader at the end of the process, in seconds."""

_STDERR = 2


class LogOutput(logging.Handler):
    """Writes each line at once while the output is ready; otherwise a thread writes the lines when the reader reads.

    The lines keep their order. A line is lost if `KEPT` is used up, or if the output refuses it. When the output works
    again, one line has the number of lost lines.

    Args:
        stream: standard output or standard error.
        name: the name of the stream, for messages.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        super().__init__()
        self._stream = stream
        self._output = name
        self._kept: deque[tuple[bytes, int]] = deque()  # what to write, and the number of lines that are lost with it
        self._size = 0
        self._lost = 0
        self._cause = ""
        self._writing = False
        self._is_within_a_line = False
        self._is_broken = False
        atexit.register(self._end)  # not `flush`: `logging.shutdown` calls it with the lock, which the thread needs

    def handle(self, record: logging.LogRecord) -> bool:
        """Format and keep the record, then write what is kept, unless a thread already does."""
        handled = super().handle(record)
        with self._locked():
            is_idle, self._writing = not self._writing, True
        if is_idle:
            self._write(wait=False)
        return handled

    def emit(self, record: logging.LogRecord) -> None:
        """Format the record and keep the line, or count it as lost."""
        try:
            line = self._encoded(record)
        except Exception:  # noqa: BLE001 - an invalid record; `logging` decides how to report it
            self.handleError(record)
            return
        with suppress(OSError, ValueError):
            self._stream.flush()  # what a command has printed comes first
        if self._kept and (self._lost or self._size + len(line) > KEPT):
            self._lost += 1
            self._cause = f"{self._output} was blocked"
        else:
            self._report_loss()
            self._keep(line, 1)

    def _encoded(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(self._stream.encoding or "utf-8", "backslashreplace")

    def _keep(self, line: bytes, lines: int) -> None:
        self._kept.append((line, lines))
        self._size += len(line)

    def _report_loss(self) -> None:
        """Keep a line with the number of lost lines, if any are lost."""
        if not self._lost:
            return
        fields = {"event": "log_lines_lost", "lines": self._lost}
        log, message = logging.getLogger(__name__), "%d log lines were lost: %s"
        record = log.makeRecord(
            log.name, logging.WARNING, __file__, 0, message, (self._lost, self._cause), None, extra=fields
        )
        line_break = b"\n" if self._is_within_a_line else b""
        self._keep(line_break + self._encoded(record), self._lost)
        self._lost = 0

    def _write(self, *, wait: bool) -> None:
        """Write the kept lines; without `wait`, a thread continues when the output is not ready."""
        while text := self._next():
            try:
                self._remove(_write_part(self._stream.fileno(), text, wait=wait))
            except BlockingIOError:
                if not wait:
                    self._write_in_thread()
                    return
            except (OSError, ValueError) as error:
                self._lose(getattr(error, "strerror", None) or str(error))
                return

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the handler. A second lock could deadlock: the garbage collector may log at any time."""
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def _next(self) -> bytes:
        """What to write next; if it is empty, the writing has ended."""
        with self._locked():
            if not self._kept:
                self._report_loss()
            self._writing = bool(self._kept)
            return self._kept[0][0] if self._kept else b""

    def _remove(self, written: int) -> None:
        with self._locked():
            line, lines = self._kept.popleft()
            self._size -= written
            self._is_within_a_line = written < len(line)
            self._is_broken = False
            if self._is_within_a_line:
                self._kept.appendleft((line[written:], lines))

    def _lose(self, why: str) -> None:
        """Count everything as lost. The first failure is reported on standard error, if that takes it at once."""
        with self._locked():
            self._lost += sum(lines for _, lines in self._kept)
            self._cause = f"{self._output}: {why}"
            self._kept.clear()
            self._size = 0
            was_broken, self._is_broken = self._is_broken, True
            self._writing = False
        if not was_broken:
            with suppress(OSError):
                _write_part(_STDERR, f"the log cannot be written to {self._output}: {why}\n".encode(), wait=False)

    def _write_in_thread(self) -> None:
        try:
            threading.Thread(target=self._write, kwargs={"wait": True}, name="log", daemon=True).start()
        except RuntimeError:  # no thread can be started now; the next line tries again
            self._writing = False

    def _end(self) -> None:
        until = time.monotonic() + END
        while self._writing and time.monotonic() < until:
            time.sleep(0.01)


def _write_part(descriptor: int, text: bytes, *, wait: bool) -> int:
    """Write the beginning of a text; returns its length.

    Raises:
        BlockingIOError: the write would wait, although `wait` is false; or the output is non-blocking and has no room.
        OSError: the output is broken.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if not poll.poll(None if wait else 0):
        raise BlockingIOError
    return os.write(descriptor, text[: select.PIPE_BUF])  # a pipe that is ready has room for so many bytes
