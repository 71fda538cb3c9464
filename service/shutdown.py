"""Ends a process within a limit, even if it waits for a thread, the database or a full pipe."""

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import FrameType

COMMAND_LIMIT = 5.0
"""Limit for a command to end after SIGINT or SIGTERM, in seconds."""
REPORT_LIMIT = 0.5
"""Limit for writing the last report and the last lines of the log, in seconds. Both hang if nobody reads them."""


class Stopped(Exception):
    """A signal ended the command. `status` is the exit status that a shell expects for that signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


def exit_after(seconds: float, status: Callable[[], int], report: Callable[[], object]) -> None:
    """End the process after `seconds`, even if parts of it still run.

    A daemon thread ends the process, because the event loop may be closed by then.

    Args:
        seconds: the time from now.
        status: returns the exit status; called at the end.
        report: called before the exit; it may hang.
    """

    def report_and_log() -> None:
        report()
        logging.shutdown()  # waits until the log is written, as the usual exit does

    def exit_now() -> None:
        time.sleep(seconds)
        reporting = threading.Thread(target=report_and_log, daemon=True)
        reporting.start()
        reporting.join(REPORT_LIMIT)
        os._exit(status())

    threading.Thread(target=exit_now, name="exit", daemon=True).start()


async def until_stopped(work: Coroutine[None, None, None]) -> None:
    """Run a command. SIGINT or SIGTERM cancels it. `COMMAND_LIMIT` s after the signal, `exit_after` ends the process.

    Raises:
        Stopped: a signal ended the command.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    stopped: list[int] = []

    def stop(number: int) -> None:
        if not stopped:
            stopped.append(number)
            exit_after(COMMAND_LIMIT, lambda: 128 + number, _report_hang)
            task.cancel()

    def handle(number: int, _frame: FrameType | None) -> None:
        with suppress(RuntimeError):  # the loop is closed, so the process already ends
            loop.call_soon_threadsafe(stop, number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    await asyncio.wait((task,))
    if stopped and task.cancelled():
        raise Stopped(stopped[0])
    await task


def _report_hang() -> None:
    sys.stderr.write(f"stopped, but a part of the command did not end within {COMMAND_LIMIT:g} s\n")
    sys.stderr.flush()
