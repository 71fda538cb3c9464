"""The output of commands: reports, and errors as bounded, printable lines."""

import argparse
import logging
import sys
from contextlib import suppress
from typing import NoReturn

from runtime.escape import one_line

LIMIT = 1000
"""Limit of a line, in characters."""
MAX_LINES = 50
"""Limit of an error, in lines."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors escape and shorten the quoted parts of the command line."""

    def error(self, message: str) -> NoReturn:
        """End the process with status 2. Standard error gets the usage, then the error as one line."""
        super().error(one_line(message, LIMIT))


def print_line(line: str) -> None:
    """Print a line after what was logged so far, and before what is logged later."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    sys.stdout.write(f"{line}\n")
    with suppress(OSError):  # the command's work continues; the flush at its end fails again and gives the exit status
        sys.stdout.flush()


def print_error(error: Exception) -> None:
    """Write an error to standard error. An error with several lines, such as one per setting, keeps its lines."""
    for line in str(error).split("\n")[:MAX_LINES]:
        sys.stderr.write(f"{one_line(line, LIMIT)}\n")
