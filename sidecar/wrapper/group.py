"""COMMAND's processes, in a session that COMMAND leads, and their watchdog."""

import asyncio
import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path

from sidecar.wrapper.starter import first_environment
from sidecar.wrapper.watchdog import LOOK, Member, members, send

FOLDER = Path(__file__).parent
CONFIRM = 1.0
"""Seconds from SIGKILL until processes that still run are reported."""


class NotStarted(Exception):
    """COMMAND cannot be executed. The text is one line; `status` is the exit status that a shell would give."""

    def __init__(self, command: str, number: int) -> None:
        exists = number == errno.ENOENT and shutil.which(command) is not None
        cause = "its interpreter or loader does not exist" if exists else os.strerror(number)
        super().__init__(f"cannot execute {command!r}: {cause}")
        self.status = 127 if number in (errno.ENOENT, errno.ENOTDIR) else 126


class Group:
    """The processes of one COMMAND, from its start until all of them have ended.

    COMMAND is reaped last. Its id also names its process group and its session, and must not be reused before all
    processes have ended.

    Args:
        grace: seconds between SIGTERM and SIGKILL if the watchdog has to end the processes.
        clock: gives monotonic seconds; `runtime.clock.elapsed`.
        changed: set when a child of this process has ended (SIGCHLD).
    """

    def __init__(self, grace: float, clock: Callable[[], float], changed: asyncio.Event) -> None:
        self._clock = clock
        self._changed = changed
        self._watchdog, self._watched = _watchdog(grace)
        self._command = 0
        self._report = -1  # the pipe from the process that becomes COMMAND
        self._outcome = b""  # what was read from this pipe
        self.watchdog_ended = False

    @property
    def pid(self) -> int:
        """The id of COMMAND, of its process group and of its session."""
        return self._command

    @property
    def ran(self) -> bool:
        """Whether COMMAND was executed. If `start` was cancelled, this is known after `end`."""
        return self._outcome == b"0"

    async def start(self, command: Sequence[str], variables: Mapping[str, str], kill_at: float) -> None:
        """Start COMMAND with these additional variables. The watchdog kills COMMAND at `kill_at` at the latest.

        Raises:
            NotStarted: COMMAND cannot be executed.
        """
        try:
            self._command, word, self._report = _starter(command, variables)
        except OSError as error:  # no process can be created, or the arguments are too long
            raise NotStarted(command[0], error.errno or errno.EAGAIN) from None
        try:
            self.tell(kill_at)
            os.write(word, b"1")
        finally:
            os.close(word)
        while True:
            await _until_readable(self._report)
            if not self._read_outcome():
                break
        if number := int(self._outcome or b"0"):
            raise NotStarted(command[0], number)

    def _read_outcome(self) -> bool:
        """Read from the pipe of the outcome; returns False at its end."""
        chunk = os.read(self._report, 16)
        self._outcome += chunk
        return chunk != b""

    def tell(self, kill_at: float) -> None:
        """Send the watchdog the time until which COMMAND may run, in seconds of the clock."""
        try:
            os.write(self._watched, f"{self._command} {kill_at:.6f}\n".encode())
        except (BrokenPipeError, BlockingIOError):  # the watchdog has ended, or has not read for minutes
            self.watchdog_ended = True

    async def wait(self, timeout: float) -> None:
        """Wait until a child of this process has ended, at most `timeout` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        self._changed.clear()
        self._reap()

    @property
    def status(self) -> int | None:
        """COMMAND's exit status: 128 plus the signal's number if a signal ended COMMAND. None while COMMAND runs."""
        if not self._command:
            return None
        ended = os.waitid(os.P_PID, self._command, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status

    async def end(self, kill_at: float, latest: float, report: Callable[[str], None]) -> int | None:
        """End all processes by SIGTERM, then by SIGKILL; returns COMMAND's status when all have ended.

        Args:
            kill_at: time of SIGKILL, in seconds of the clock.
            latest: time at which the watchdog sends SIGKILL if this process does not; no later than the term's
                deadline.
            report: called with a sentence about processes that did not end in time.
        """
        if self._command:
            left = members(self._command)
            if left:
                self.tell(latest)
                send(self._command, signal.SIGTERM, left)
                send(self._command, signal.SIGCONT, left)  # a stopped process does not handle SIGTERM
            while left and (seconds := kill_at - self._clock()) > 0:
                await self.wait(min(seconds, LOOK))
                left = members(self._command)
            if left:
                report(f"{len(left)} processes did not end on SIGTERM: SIGKILL")
            await self._kill(left, report)
        status = self.status
        self._close()
        return status

    async def _kill(self, left: list[Member], report: Callable[[str], None]) -> None:
        """Send SIGKILL until no process runs.

        A process of COMMAND's group cannot escape the signal by a fork. A process in another group of the session may
        leave a child, which the next round finds.
        """
        complain_at = self._clock() + CONFIRM
        while True:
            send(self._command, signal.SIGKILL, left)
            left = members(self._command)
            if not left:
                return
            await self.wait(LOOK)
            if self._clock() >= complain_at:
                complain_at = inf
                report("the processes still run after SIGKILL; the lease is not resigned before they end")

    def _close(self) -> None:
        """End and reap the watchdog, then reap COMMAND, whose id may be reused after that."""
        os.close(self._watched)
        if self._command:
            while self._read_outcome():  # the rest, if `start` was cancelled; every writer has ended
                pass
            os.close(self._report)
        if self._watchdog:
            os.kill(self._watchdog, signal.SIGKILL)
            os.waitpid(self._watchdog, 0)
            self._watchdog = 0
        if self._command:
            os.waitpid(self._command, 0)
            self._command = 0

    def _reap(self) -> None:
        """Reap the watchdog and the children that this process has not started; never COMMAND itself."""
        if self._watchdog and os.waitpid(self._watchdog, os.WNOHANG)[0]:
            self._watchdog, self.watchdog_ended = 0, True
        reap_others(self._command, self._watchdog)


def reap_others(*started: int) -> None:
    """Reap the ended children of this process. Stop at an ended child in `started`, the ids of the wrapper's processes.

    The other children are orphans that this process adopted as the container's init, or children that it started before
    it executed the wrapper.
    """
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid in started:
            return
        os.waitpid(ended.si_pid, 0)


def _watchdog(grace: float) -> tuple[int, int]:
    """Start a watchdog; returns its id and the pipe to it. SIGKILL is the only signal that ends the watchdog."""
    read, write = os.pipe()
    try:
        words = [sys.executable, "-I", "-S", str(FOLDER / "watchdog.py"), str(grace)]
        actions = [(os.POSIX_SPAWN_DUP2, read, 0), (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
        every = signal.valid_signals()
        os.set_blocking(write, False)
        return os.posix_spawn(words[0], words, first_environment(), file_actions=actions, setsid=True,
                              setsigmask=every), write  # fmt: skip
    except BaseException:
        os.close(write)
        raise
    finally:
        os.close(read)


def _starter(command: Sequence[str], variables: Mapping[str, str]) -> tuple[int, int, int]:
    """Start the process that becomes COMMAND; returns its id, the pipe for the start, and the pipe for the outcome."""
    read, word = os.pipe()
    report, write = os.pipe()
    try:
        words = [sys.executable, "-I", "-S", str(FOLDER / "starter.py"), str(write), *command]
        os.set_inheritable(write, True)  # a dup2 to a fixed number could replace a descriptor of COMMAND
        actions = [(os.POSIX_SPAWN_DUP2, read, 0)]
        environment = first_environment() | {name.encode(): os.fsencode(value) for name, value in variables.items()}
        pid = os.posix_spawn(words[0], words, environment, file_actions=actions, setsid=True, setsigmask=())
    except BaseException:
        os.close(word)
        os.close(report)
        raise
    finally:
        os.close(read)
        os.close(write)
    return pid, word, report


async def _until_readable(descriptor: int) -> None:
    """Wait until a read from the descriptor does not block."""
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
