"""`python -m sidecar` runs the sidecar; with arguments, the health check, the wrapper or an operator's command."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from runtime.command_line import run_and_exit
from runtime.environment import remove_ignored
from runtime.escape import one_line
from sidecar.settings import SettingsError

_LIBRARIES = ("aiohttp.web", "prometheus_client", "redis.asyncio", "uvloop")
"""The large libraries of the sidecar."""
_THRESHOLDS = (50_000, 1_000, 10)
"""Thresholds of the garbage collector during the imports of the libraries: the imports leave little garbage."""
LONGEST = 1_000
"""Limit of a line of an error, in characters."""


def main(arguments: list[str]) -> int:
    """Run a command; returns the exit status: 0 success, 1 failure, 2 invalid arguments or settings.

    `exec` also returns the statuses that `sidecar.wrapper.run.run` lists.
    """
    ignored = remove_ignored()  # before the libraries that read the variables are imported
    try:
        if arguments == ["healthcheck"]:  # the health check must be quick, so nothing else is imported for it
            return _healthcheck()
        if not arguments:
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))  # until the loop handles them
            return _run(ignored)
        if arguments[0] == "exec":
            return _exec(arguments[1:])
        return _command(arguments)
    except SettingsError as error:
        for line in str(error).splitlines():
            print(f"sidecar: {one_line(line, LONGEST)}", file=sys.stderr)
        return 2


def _run(ignored: Sequence[str]) -> int:
    import gc
    import logging
    from importlib import import_module

    thresholds = gc.get_threshold()
    gc.set_threshold(*_THRESHOLDS)
    for library in _LIBRARIES:
        import_module(library)
    gc.freeze()  # a search for garbage among the libraries' objects would take a tenth of the start-up time
    from sidecar.run import run

    gc.freeze()
    gc.set_threshold(*thresholds)
    try:
        return run(os.environ, ignored)
    except Exception as error:
        if isinstance(error, SettingsError):
            raise
        logging.getLogger("sidecar").critical("The sidecar ends because of an internal error", exc_info=True)
        return 1


def _exec(words: list[str]) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))  # until the loop handles them
    import logging

    from sidecar.wrapper.arguments import USAGE, UsageError
    from sidecar.wrapper.run import run

    if words in (["-h"], ["--help"]):
        print(USAGE)
        return 0
    try:
        return run(words, os.environ)
    except UsageError as error:
        print(f"sidecar: {one_line(error, LONGEST)}", file=sys.stderr)
        return 2
    except Exception as error:
        if isinstance(error, (SettingsError, ModuleNotFoundError)):
            raise
        logging.getLogger("sidecar").critical("The wrapper ends because of an internal error", exc_info=True)
        return 1


def _command(arguments: list[str]) -> int:
    from sidecar.commands import operator as commands

    if arguments in (["watch"], ["watch", "--json"]):  # the signals stay blocked until the loop of `watch` handles them
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    if {"-h", "--help"} & {*arguments}:
        print(commands.USAGE)
        return 0
    try:
        failure = commands.run(arguments, os.environ, lambda line: print(line, flush=True))
    except (commands.CommandError, commands.UsageError) as error:
        print(f"sidecar: {one_line(error, LONGEST)}", file=sys.stderr)
        return 2 if isinstance(error, commands.UsageError) else 1
    if failure is not None:
        print(f"sidecar: {one_line(failure, LONGEST)}", file=sys.stderr)
    return 0 if failure is None else 1


def _healthcheck() -> int:
    """The exit status of a container's health check: 0 if healthy, else 1. Nothing goes to standard error."""
    from sidecar.healthcheck import healthy

    try:
        return 0 if healthy(os.environ) else 1
    except SettingsError as error:
        print(f"sidecar: {one_line(error, LONGEST)}")
        return 1


def console() -> NoReturn:
    """Run the command of `sys.argv` and exit: the console script `lease-sidecar`."""
    run_and_exit(main, program="sidecar")


if __name__ == "__main__":
    console()
