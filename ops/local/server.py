"""A server as a child process: starts, pauses and kills it, and never leaves it behind."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Self

from ops.local import orphans
from ops.local.processes import die_with_us


class ServerError(Exception):
    """A server cannot be found or started; the text is one line for the user."""


MOST_HELD = 128
"""Maximum number of ports that `free_port` reserves at a time."""

_ERROR = re.compile(r"\b(error:|FATAL|PANIC)")

_held: deque[int] = deque()
"""File descriptors of the sockets that reserve these ports, the oldest first."""


def free_port() -> int:
    """Return a free TCP port of 127.0.0.1 for a server.

    On Linux the port is reserved until this process has taken `MOST_HELD` more ports: a socket with SO_REUSEADDR is
    bound to it and does not listen. The kernel gives the port to no other program, but a server that asks for this port
    with SO_REUSEADDR can bind it. On other systems nothing reserves the port.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    port: int = holder.getsockname()[1]
    if sys.platform.startswith("linux"):
        _held.append(holder.detach())
    else:
        holder.close()
    if len(_held) > MOST_HELD:
        os.close(_held.popleft())
    return port


def cause(output: bytes) -> str:
    """Return the line of a failed server's output that has the cause: the last line with an error, else the last line.

    A program of Postgres writes hints after an error. At its end, initdb writes which files it removes.
    """
    said = [line for line in output.decode(errors="replace").splitlines() if line.strip() and "removing" not in line]
    return next((line for line in reversed(said) if _ERROR.search(line)), said[-1] if said else "no output")


class Server:
    """A server process with its folder, log and port. A `start` after `kill` uses the same port."""

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._logged_before = 0

    def command(self) -> list[str]:
        """The command line of the server."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Return true if the server answers."""
        raise NotImplementedError

    @property
    def user(self) -> int | None:
        """The numeric user to run as, or None for the user of this process."""
        return None

    def start(self, *, wait: float = 30.0) -> Self:
        """Start the process and return once it answers.

        Raises:
            ServerError: the server exited, or did not answer within `wait` seconds.
            OSError: the folder cannot be written.
        """
        self.prepare()
        self._launch()
        deadline = time.monotonic() + wait
        while not self._up(deadline):
            time.sleep(0.02)
        return self

    async def start_beside(self, *, wait: float = 30.0) -> Self:
        """`start` without blocking the event loop; a cancelled start leaves no process behind."""
        with orphans.starting():  # `prepare` runs other programs
            preparing = asyncio.ensure_future(asyncio.to_thread(self.prepare))
            try:
                await asyncio.shield(preparing)
            except asyncio.CancelledError:
                await asyncio.wait([preparing])  # a thread cannot be cancelled, and it still writes files
                preparing.exception()  # retrieves the exception, so that asyncio does not log it
                raise
        self._launch()  # not in the other thread: a child dies with the *thread* that started it
        try:
            deadline = time.monotonic() + wait
            while not self._up(deadline):  # noqa: ASYNC110 - the server cannot set an event of this process
                await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            self.kill()
            raise
        return self

    def prepare(self) -> None:
        """Make the files that the server needs before its first start."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def _launch(self) -> None:
        with self.log.open("ab") as log:
            self._logged_before = log.tell()
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                user=self.user,
                start_new_session=True,  # Ctrl-C in a terminal is for the runner alone
                preexec_fn=die_with_us(signal.SIGINT),  # noqa: PLW1509 - takes no lock, so a thread cannot block it
            )
        orphans.ours.add(self.process)

    def _up(self, deadline: float) -> bool:
        if self.ready():
            return True
        if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
            self.kill()
            reason = cause(self.log.read_bytes()[self._logged_before :])
            raise ServerError(
                f"{type(self).__name__} did not start on port {self.port}: {reason} (whole output: {self.log})"
            )
        return False

    @property
    def exit_code(self) -> int | None:
        """The exit code of the process; None while it runs and before its start.

        If a signal ended the process, it is the negative number of the signal.
        """
        return None if self.process is None else self.process.poll()

    def stop(self, *, within: float = 10.0) -> None:
        """Stop the process with SIGINT, and kill it after `within` seconds; do nothing if no process runs."""
        if self.process is None:
            return
        self.resume()
        self.process.send_signal(signal.SIGINT)  # Postgres: fast shutdown; Redis: shutdown
        try:
            self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process = None

    def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        if (process := self.process) is not None:
            process.kill()
            process.wait()
            self.process = None

    def pause(self) -> None:
        """Send SIGSTOP: the port stays open, but the server answers nothing."""
        if self.process is not None:
            self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Send SIGCONT."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        try:
            return await self.start_beside()
        except BaseException:
            self.stop()  # removes the files that a start leaves behind
            raise

    async def __aexit__(self, *exc: object) -> None:
        self.stop()
