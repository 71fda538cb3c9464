"""Parts of the command lines of the simulation, the seeded bugs and the chaos runs.

A wrong argument and Ctrl-C each print one line.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.pool import Pool
from typing import NoReturn

INTERRUPTED = 130
"""The exit status of a command that Ctrl-C ended."""


class Parser(argparse.ArgumentParser):
    """A parser that reports an error without the usage text."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def exit_with(name: str, main: Callable[[], int]) -> NoReturn:
    """Exit with the status that `main` returns, or with `INTERRUPTED` after Ctrl-C."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{name}: interrupted; no process is left running\n")
        sys.exit(INTERRUPTED)


@contextmanager
def workers(processes: int, prepare: Callable[..., object] | None = None, *arguments: object) -> Iterator[Pool]:
    """Yield a pool of processes that ignore Ctrl-C; the pool ends with the block. Call this in the main thread only."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the new processes inherit this
    try:
        pool = get_context("spawn").Pool(processes, prepare, arguments)
    finally:
        signal.signal(signal.SIGINT, before)
    with pool:
        yield pool
