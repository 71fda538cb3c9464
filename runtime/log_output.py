"""The output of a log. A thread of its own writes the lines, so the rest of the process never waits for the reader."""

import logging
import os
import select
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TextIO

KEPT = 1 << 20
"""Limit of the lines that wait for the reader, in bytes; a typical line has 200 bytes."""
END = 1.0
"""Longest wait for the reader at the end of the process, in seconds."""

_STDERR = 2


class LogOutput(logging.Handler):
    """Gives each line to a thread, which writes the lines in order.

    A line is lost if more than `KEPT` bytes would wait, or if the output refuses it. When the output works again, one
    line reports the number of lost lines.

    A signal handler or the garbage collector may log at any time, also within `emit`. So `emit` takes no lock of its
    own. The callers and the thread share only a queue and counters; each counter is changed by only one of the two
    sides.

    Args:
        stream: standard output or standard error. What a program prints there comes before later lines of the log only
            if the program flushes it.
        name: the name of the stream, for messages.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        super().__init__()
        self._stream = stream
        self._output = name
        self._queue: SimpleQueue[bytes | threading.Event] = SimpleQueue()
        self._queued = self._written = 0  # bytes
        self._dropped = self._noticed = 0  # lines that did not fit into the queue; those that the thread has seen
        self._lost, self._why = 0, ""  # lines that the thread has not reported yet
        self._is_broken = self._is_within_a_line = False
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Format the record and give the line to the thread, or count it as lost."""
        try:
            line = self._encoded(record)
        except Exception:  # noqa: BLE001 - an invalid record; `logging` decides how to report it
            self.handleError(record)
            return
        waiting = self._queued - self._written
        if self._dropped == self._noticed and (not waiting or waiting + len(line) <= KEPT):
            self._queued += len(line)
            self._queue.put(line)
            return
        self._dropped += 1
        if self._queue.empty():  # the thread may wait for an item already, and must notice the loss
            self._queue.put(b"")

    def flush(self) -> None:
        """Wait until the lines so far are written or lost, at most `END` seconds.

        `logging` calls this at the end of the process.
        """
        done = threading.Event()
        self._queue.put(done)
        done.wait(END)

    def _encoded(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(self._stream.encoding or "utf-8", "backslashreplace")

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, bytes):
                self._write(item)
                self._written += len(item)
            dropped = self._dropped
            if dropped > self._noticed and self._queue.empty():  # the lines before the lost ones are written
                self._lost += dropped - self._noticed
                self._why = f"{self._output} was blocked"
                self._noticed = dropped
                self._write(b"")
            if isinstance(item, threading.Event):
                item.set()

    def _write(self, line: bytes) -> None:
        """Write the number of lost lines, if any, and the line; count the line as lost if the output refuses it."""
        try:
            if self._lost:
                self._write_all(self._loss())
                self._lost = 0
            self._write_all(line)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            self._lost += bool(line)
            self._why = f"{self._output}: {why}"
            if not self._is_broken and _has_room(_STDERR, 0):
                with suppress(OSError):
                    os.write(_STDERR, f"the log cannot be written to {self._why}\n".encode())
            self._is_broken = True

    def _write_all(self, text: bytes) -> None:
        while text:
            descriptor = self._stream.fileno()
            try:
                written = os.write(descriptor, text)
            except BlockingIOError:
                _has_room(descriptor, None)
                continue
            text = text[written:]
            self._is_within_a_line = bool(text)
            self._is_broken = False

    def _loss(self) -> bytes:
        log, fields = logging.getLogger(__name__), {"event": "log_lines_lost", "lines": self._lost}
        message, values = "%d log lines were lost: %s", (self._lost, self._why)
        record = log.makeRecord(log.name, logging.WARNING, __file__, 0, message, values, None, extra=fields)
        return (b"\n" if self._is_within_a_line else b"") + self._encoded(record)


def _has_room(descriptor: int, limit: int | None) -> bool:
    """Wait until a descriptor has room or is broken; returns False after `limit` milliseconds. None means no limit."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(limit))
