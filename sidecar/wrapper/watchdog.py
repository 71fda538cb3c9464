"""The watchdog of the wrapper: a separate program that ends COMMAND's processes if the wrapper cannot.

The wrapper, `python -P -m sidecar exec`, starts the watchdog with a pipe as the watchdog's standard input, and writes
two values into the pipe: the id of COMMAND's session, and the time until which COMMAND may run. The watchdog kills the
session at that time, so that COMMAND ends even if the wrapper is frozen. If the pipe ends, the wrapper has ended. Then
the watchdog sends SIGTERM, and sends SIGKILL after the grace or at the time until which COMMAND may run, whichever
comes first.

The watchdog runs with `python -I -S`, and imports only the standard library. The wrapper imports the functions about
processes from here.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

TICK = 0.25
"""Seconds between two checks of the clock.

One wait until the deadline could end late, because the timer of `select` stops while the machine is suspended.
"""
LOOK = 0.02
"""Seconds between two checks of processes that must end."""
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Member(NamedTuple):
    """A running process of a session, and the id of its process group."""

    pid: int
    group: int


def members(session: int) -> list[Member]:
    """Return the processes of a session that have not ended.

    A zombie has ended, unless other threads of it still run.
    """
    return [member for member, of in _processes() if of == session]


def send(session: int, number: signal.Signals, seen: list[Member]) -> None:
    """Send a signal to the group of a session's leader, and to the processes `seen` in the session's other groups.

    The leader must not have been reaped, because its id could then belong to another process.
    """
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(session, number)
    for member in seen:
        if member.group != session:
            _send_to_one(member.pid, session, number)


def _send_to_one(pid: int, session: int, number: signal.Signals) -> None:
    """Send a signal to a process if it still belongs to the session: a process id may have been reused."""
    with suppress(OSError):
        handle = os.pidfd_open(pid)
        try:
            if os.getsid(pid) == session:
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def _processes() -> Iterator[tuple[Member, int]]:
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib would be imported for it
        if not name.isdecimal():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123 - likewise
                fields = file.read().rpartition(b")")[2].split()  # a program's name may contain any character
        except OSError:  # the process has ended meanwhile
            continue
        state, group, session, threads = fields[0], int(fields[2]), int(fields[3]), int(fields[17])
        if state not in b"ZX" or threads > 1:
            yield Member(int(name), group), session


class Watchdog:
    """Acts on the wrapper's last message: the session to end (0: none), and its deadline in seconds of the clock."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._session, self._kill_at = 0, 0.0
        self._text = b""

    def run(self) -> None:
        """Watch the pipe and the clock. Return when the wrapper has ended and no process of the session runs."""
        while True:
            left = self._kill_at - time.clock_gettime(_CLOCK)
            if self._session and left <= 0 and (seen := members(self._session)):
                send(self._session, signal.SIGKILL, seen)
            wait = LOOK if self._session and left <= 0 else min(left, TICK) if self._session else None
            if select.select([0], [], [], wait)[0] and not self._read():
                break
        if self._session:
            self._end()

    def _read(self) -> bool:
        """Read the wrapper's message; returns False at the pipe's end."""
        chunk = os.read(0, 4096)
        *lines, self._text = (self._text + chunk).split(b"\n")
        if lines:
            session, kill_at = lines[-1].split()
            self._session, self._kill_at = int(session), float(kill_at)
        return chunk != b""

    def _end(self) -> None:
        kill_at = min(self._kill_at, time.clock_gettime(_CLOCK) + self._grace)
        asked = False
        while seen := members(self._session):
            if time.clock_gettime(_CLOCK) >= kill_at:
                send(self._session, signal.SIGKILL, seen)
            elif not asked:
                asked = True
                send(self._session, signal.SIGTERM, seen)
                send(self._session, signal.SIGCONT, seen)
            time.sleep(LOOK)


if __name__ == "__main__":
    Watchdog(float(sys.argv[1])).run()
