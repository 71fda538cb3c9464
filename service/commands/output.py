"""What commands print: one bounded, printable line for each thing that is wrong."""

import argparse
import sys
from typing import NoReturn

from runtime.escape import one_line

LIMIT = 1000
"""Characters of one line."""
MOST_LINES = 50


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors repeat no escape sequence and no megabyte of the command line."""

    def error(self, message: str) -> NoReturn:
        """End the process with status 2 and one line."""
        super().error(one_line(message, LIMIT))


def print_error(error: Exception) -> None:
    """Write an error to standard error: what is several lines by design, such as one for each setting, stays so."""
    for line in str(error).split("\n")[:MOST_LINES]:
        sys.stderr.write(f"{one_line(line, LIMIT)}\n")
