"""Outputs of a process that nobody reads, or that are broken."""

import logging
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.waiting import LIMIT


def flush_log() -> None:
    """Wait until the log of this process is written."""
    for handler in logging.getLogger().handlers:
        handler.flush()


class FullPipe:
    """A pipe that is full from `fill` on, until a test reads it."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self._filled = 0

    def fill(self) -> None:
        filler = os.open(f"/proc/self/fd/{self.writer}", os.O_WRONLY | os.O_NONBLOCK)
        for size in (4096, 1):
            try:
                while True:
                    self._filled += os.write(filler, b"." * size)
            except BlockingIOError:
                continue
        os.close(filler)

    def close_writer(self) -> None:
        """Close the writing end in this process only; other processes may have a copy."""
        os.close(self.writer)
        self.writer = -1

    def close(self) -> None:
        os.close(self.reader)
        if self.writer >= 0:
            os.close(self.writer)

    def read(self, *until: bytes) -> bytes:
        """Read until all of these texts have come, or until the end; return what was written after the pipe was full.

        Raises:
            TimeoutError: nothing came for `LIMIT` seconds.
        """
        found = bytearray()
        while not until or not all(text in found for text in until):
            if not select.select([self.reader], [], [], LIMIT)[0]:
                raise TimeoutError(f"nothing more came; so far: {bytes(found[-1000:])!r}")
            part = os.read(self.reader, 1 << 16)
            if not part:
                break
            found += part[self._filled :]
            self._filled = max(self._filled - len(part), 0)
        return bytes(found)


@contextmanager
def empty_pipe() -> Iterator[FullPipe]:
    """A pipe that a test fills later."""
    pipe = FullPipe()
    try:
        yield pipe
    finally:
        pipe.close()


@contextmanager
def full_pipe() -> Iterator[FullPipe]:
    with empty_pipe() as pipe:
        pipe.fill()
        yield pipe


@contextmanager
def output(kind: str) -> Iterator[int]:
    """The descriptor of an output: `unread` for a full pipe, `closed` for a pipe without a reader, or `full disk`."""
    if kind == "unread":
        with full_pipe() as pipe:
            yield pipe.writer
        return
    if kind == "closed":
        reader, descriptor = os.pipe()
        os.close(reader)
    else:
        descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
