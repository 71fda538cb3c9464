"""The command `python -m ops.local`: reads the settings, locks the folder, and handles the signals of one run."""

import asyncio
import errno
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.local import orphans
from ops.local.console import Console
from ops.local.definition import DefinitionError, TaskDefinition, read
from ops.local.programs import spelled_out
from ops.local.runner import Runner
from ops.local.settings import RunSettings, UsageError, unwritable

ROOT = Path(__file__).resolve().parents[2]
WORDS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")

USAGE = """usage: python -m ops.local
Environment variables: RUN_TASKS=2, RUN_PORT_OFFSET=0, RUN_FOLDER=.run. To use your own servers, set REDIS_URL
(REDIS_USERNAME, REDIS_PASSWORD) and DATABASE_URL. You can also set most of the variables that
task-definition.json gives a container, such as TRACKER_INTERVAL=5."""

FORCE_AFTER = 0.5
"""Seconds after the first signal in which a second one does not kill: `make` and `timeout` may send a signal twice."""

HUNG_UP = (errno.EPIPE, errno.EIO)
"""Errors of a screen whose reader has ended: a pipe, such as to `head`, or a terminal that was closed."""


def main() -> int:
    """Run; returns the exit status: 0 after Ctrl-C, 1 if the screen cannot be written, 2 if the run cannot start."""
    if sys.argv[1:]:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        settings = RunSettings.read(os.environ, ROOT)
        definition = read(ROOT / "task-definition.json")
        with _folder(settings.folder) as logs:
            lost = asyncio.run(_run(definition, settings, logs))
    except (UsageError, DefinitionError) as error:
        _complain("; ".join(str(error).splitlines()))
        return 2
    except OSError as error:  # the machine's limits, such as the number of open files
        _complain(f"{error.filename}: {error.strerror}" if error.filename else f"{error.strerror or error}")
        return 2
    if lost is not None and lost.errno not in HUNG_UP:
        _complain(f"the output cannot be written: {lost.strerror}; the tasks were stopped")
        return 1
    return 0


async def _run(definition: TaskDefinition, settings: RunSettings, logs: Path) -> OSError | None:
    """Run until a signal or until the screen cannot be written; returns the error of the screen."""
    stopping = asyncio.Event()
    colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    console = Console(sys.stdout, logs, colours=colours, closed=stopping.set)
    runner = Runner(spelled_out(definition), settings, os.environ, ROOT, console, stopping)
    knows_all = orphans.adopt()
    asked_at: list[float] = []

    def asked(number: signal.Signals) -> None:
        if not asked_at:
            asked_at.append(time.monotonic())
            stopping.set()
            after_echo = "\n" if sys.stdin is not None and sys.stdin.isatty() else ""  # the terminal has shown ^C
            console.say(
                f"{after_echo}{number.name}: stopping as ECS does, each API before its sidecar; a second signal kills."
            )
        elif time.monotonic() - asked_at[0] > FORCE_AFTER:
            console.say("Killing everything.")
            runner.kill()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, asked, number)
    try:
        runner.check()
        tasks = f"{WORDS[settings.tasks]} task{'s' if settings.tasks > 1 else ''} of {definition.family}"
        console.say(f"{tasks} on this machine, as ECS would run them. Ctrl-C stops them.\n")
        for name in definition.left_out:
            console.step(name, "skipped: the definition has no command for it, and its image is not read here")
        await runner.run()
    finally:
        console.close()
    console.say(f"Stopped{'; nothing is left running' if knows_all else ''}. Logs: {logs}")
    return console.lost


def _complain(text: str) -> None:
    print(f"run: {text}", file=sys.stderr)


@contextmanager
def _folder(folder: Path) -> Iterator[Path]:
    """Make the run's folder and lock it for this run; yields the folder of the logs.

    Raises:
        UsageError: the folder cannot be written, or another run uses it.
    """
    logs = folder / "logs"
    try:
        logs.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a")
    except OSError as error:
        raise unwritable(folder, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"another run uses {folder}; stop it, or set RUN_FOLDER and RUN_PORT_OFFSET") from error
        yield logs
