"""The end of a process that does not wait for what cannot be cancelled: a thread, a frozen database, a full pipe."""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from types import FrameType

COMMAND_LIMIT = 5.0
"""Seconds that a command may take to end after SIGINT or SIGTERM."""
REPORT_LIMIT = 0.5
"""Seconds that the last log line may take: whoever reads the log may have stopped reading."""


class Stopped(Exception):
    """A signal ended the command; `status` is the exit status that a shell expects then."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


def exit_after(seconds: float, status: Callable[[], int], report: Callable[[], object]) -> None:
    """Exit in `seconds`, whatever still runs then; nothing happens if the process has ended by itself.

    A thread of its own waits: it needs no event loop, which may be closed by then.

    Args:
        seconds: from now.
        status: exit status, asked for at the end.
        report: called before the exit; what it does may hang.
    """

    def leave() -> None:
        time.sleep(seconds)
        speaker = threading.Thread(target=report, daemon=True)
        speaker.start()
        speaker.join(REPORT_LIMIT)
        os._exit(status())

    threading.Thread(target=leave, name="leaving", daemon=True).start()


async def until_stopped(work: Coroutine[None, None, None], limit: float = COMMAND_LIMIT) -> None:
    """Run a command's work; SIGINT or SIGTERM cancels it, and the process ends within `limit` seconds after that.

    Raises:
        Stopped: a signal ended it.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    stopped: list[int] = []

    def stop(number: int) -> None:
        if not stopped:
            stopped.append(number)
            exit_after(limit, lambda: 128 + number, _report_hang)
            task.cancel()

    def handle(number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop, number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    await asyncio.wait((task,))
    if stopped and task.cancelled():
        raise Stopped(stopped[0])
    await task


def _report_hang() -> None:
    sys.stderr.write(f"stopped; something did not end within {COMMAND_LIMIT:g} s and was left behind\n")
    sys.stderr.flush()
