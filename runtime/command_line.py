"""The start and the exit of a command line program."""

import os
import sys
from collections.abc import Callable
from errno import EIO, ENOSPC
from io import TextIOWrapper
from typing import NoReturn

OURS = ("runtime", "service", "sidecar")
"""Packages that every install has: a missing module in one of them is a bug, not a missing extra."""


def run_and_exit(main: Callable[[list[str]], int], *, program: str) -> NoReturn:
    """Run `main` with the arguments of the command line, and exit with the status that it returns.

    The status is 130 after Ctrl-C, and 1 if the reader of standard output, such as `head`, has closed the pipe, or if
    the output cannot be written. A log that cannot be written does not change the status. The status is 2 if a package
    of the extra `program` is missing: an install without extras has only the packages that the client library needs.
    """
    prepare_streams()
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in OURS:
            raise
        sys.stderr.write(f"{program}: {error.name} is not installed: pip install 'ecs-lease-sidecar[{program}]'\n")
        status = 2
    except KeyboardInterrupt:  # `main` has not installed its signal handlers yet
        status = 130
    except OSError as error:
        is_closed = isinstance(error, BrokenPipeError)
        if not is_closed and error.errno not in (ENOSPC, EIO):  # not a full disk, and not a lost terminal
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at exit
        if not is_closed:
            sys.stderr.write(f"{program}: the output cannot be written: {error.strerror}\n")
        status = 1
    sys.exit(status)


def prepare_streams() -> None:
    """Let a program print any text: a closed stream discards it, and characters that the encoding lacks are escaped."""
    _open_closed_streams()
    if isinstance(sys.stdout, TextIOWrapper):  # always, unless the caller replaced it
        sys.stdout.reconfigure(errors="backslashreplace")


def _open_closed_streams() -> None:
    """Open /dev/null in the place of each standard stream that is closed, such as by `>&-`. Python sets it to None.

    The order gives each stream its usual descriptor, so that no connection gets the descriptor of an output.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - without pathlib; open until the exit
