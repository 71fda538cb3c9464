"""Outputs of a process that nobody reads, or that are broken."""

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.waiting import LIMIT


class FullPipe:
    """A pipe that has no room for another byte, until a test reads it."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        self._filled = 0
        for size in (4096, 1):
            try:
                while True:
                    self._filled += os.write(self.writer, b"." * size)
            except BlockingIOError:
                continue
        os.set_blocking(self.writer, True)

    def close_writer(self) -> None:
        """Leave the writing end to the processes that have a copy of it."""
        os.close(self.writer)
        self.writer = -1

    def close(self) -> None:
        os.close(self.reader)
        if self.writer >= 0:
            os.close(self.writer)

    def read(self, *until: bytes) -> bytes:
        """What was written after the pipe was full: until all of these texts have come, or until the end.

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
def full_pipe() -> Iterator[FullPipe]:
    pipe = FullPipe()
    try:
        yield pipe
    finally:
        pipe.close()


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
