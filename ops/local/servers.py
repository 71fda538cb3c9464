"""A real Redis and a real Postgres as child processes, from the binaries in the wheels or on the path.

Both servers listen on loopback only and keep their data under a folder of the caller. On Linux they end with the
process that started them, even if that process is killed (`PR_SET_PDEATHSIG`).
"""

import os
import shutil
import socket
import sys
from pathlib import Path

from ops.local.postgres_server import PostgresServer
from ops.local.server import Server, ServerError, free_port

__all__ = ["PostgresServer", "RedisServer", "Server", "ServerError", "free_port", "redis_binary"]


def redis_binary() -> Path:
    """Return the redis-server of REDIS_SERVER, else of the wheel (next to the interpreter), else of the path.

    Raises:
        ServerError: no redis-server is installed.
    """
    if chosen := os.environ.get("REDIS_SERVER"):
        if not os.access(chosen, os.X_OK):
            raise ServerError(f"REDIS_SERVER: {chosen} is not a program")
        return Path(chosen)
    beside = Path(sys.executable).parent / "redis-server"
    found = beside if beside.exists() else shutil.which("redis-server")
    if found is None:
        raise ServerError("no redis-server: run make setup, put redis-server on the path, or set REDIS_URL")
    return Path(found)


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
        """The command line: loopback only, no files on disk."""
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
        """Return true if the server answers; an error such as NOAUTH is an answer too."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(1) in (b"+", b"-")
        except OSError:
            return False
