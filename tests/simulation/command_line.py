"""The command line of the simulating commands: one line for a wrong argument, and one at Ctrl-C."""

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
    """A parser that reports an error without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def exit_with(name: str, main: Callable[[], int]) -> NoReturn:
    """Exit with what `main` returns."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{name}: interrupted; nothing is left running\n")
        sys.exit(INTERRUPTED)


@contextmanager
def workers(processes: int, prepare: Callable[..., object] | None = None, *arguments: object) -> Iterator[Pool]:
    """A pool of processes that ignore Ctrl-C, ended with the block. Only for the main thread."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the processes inherit it from their start
    try:
        pool = get_context("spawn").Pool(processes, prepare, arguments)
    finally:
        signal.signal(signal.SIGINT, before)
    with pool:
        yield pool
