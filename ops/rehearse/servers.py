"""Redis with a replica, and Postgres, each at its own address, with TLS certificates from the run's authority."""

import os
import re
import shutil
import socket
import sys
from pathlib import Path
from typing import Self

import asyncpg
from redis.asyncio import Redis

from ops.local.postgres_server import PostgresServer
from ops.local.server import Server, ServerError
from ops.rehearse.names import POSTGRES_NAME, REDIS_NAME, Names
from ops.rehearse.network import POSTGRES, REDIS
from ops.rehearse.podman import CERTIFICATES
from ops.rehearse.versions import ROOT
from tests.support.tls import Authority

PASSWORD = "rehearsal"  # noqa: S105 - the servers are in a private network namespace
REDIS_PORT, POSTGRES_PORT = 6379, 5432
REDIS_USER = "sidecar"
"""User of a sidecar whose definition names a user. It has exactly the rights in docs/redis.md."""

RIGHTS = re.compile(r"^ACL SETUSER sidecar on >PASSWORD (.+)$", re.MULTILINE)
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")


def redis_program() -> Path:
    """The system's redis-server, since the wheel's program has no TLS.

    Raises:
        ServerError: the program is not installed.
    """
    return _program("redis-server", "redis-server", [])


def postgres_program() -> Path:
    """The system's postgres, since the wheel's program has no TLS.

    Raises:
        ServerError: the program is not installed.
    """
    return _program("postgres", "postgresql", sorted(DEBIAN_POSTGRES.glob("*/bin/postgres"), reverse=True)).resolve()


def least_rights() -> list[str]:
    """Return the rights of a sidecar's user from docs/redis.md, from which operators copy them.

    Raises:
        ServerError: the document has no such line.
    """
    found = RIGHTS.search((ROOT / "docs" / "redis.md").read_text())
    if found is None:
        raise ServerError("docs/redis.md has no line `ACL SETUSER sidecar on >PASSWORD ...`")
    return found[1].split()


def _program(name: str, package: str, places: list[Path]) -> Path:
    ours = Path(sys.executable).parent
    path = os.pathsep.join(each for each in os.get_exec_path() if Path(each) != ours)
    found = [str(place) for place in places] + [shutil.which(name, path=path) or ""]
    if not found[0]:
        raise ServerError(f"no {name} with TLS is installed; Debian has it in the package {package}")
    return Path(found[0])


class TlsRedis(Server):
    """A Redis that accepts only TLS, at its own address."""

    def __init__(self, folder: Path, address: str, certificate: tuple[Path, Path], authority: Path) -> None:
        super().__init__(folder, port=REDIS_PORT)
        self.address = address
        self._certificate = certificate
        self._authority = authority
        self._program = redis_program()
        self._rights = least_rights()

    def command(self) -> list[str]:
        """The command line."""
        certificate, key = map(str, self._certificate)
        tls = {"cert-file": certificate, "key-file": key, "ca-cert-file": str(self._authority), "auth-clients": "no"}
        settings = {
            "bind": self.address,
            "port": "0",
            "tls-port": str(self.port),
            **{f"tls-{name}": value for name, value in tls.items()},
            "tls-replication": "yes",
            "requirepass": PASSWORD,  # of the user `default`
            "masterauth": PASSWORD,
            "repl-diskless-sync-delay": "0",
            "save": "",
            "appendonly": "no",
            "dir": str(self.folder),
        }
        user = ["--user", REDIS_USER, "on", f">{PASSWORD}", *self._rights]
        return [str(self._program), *user, *(word for name, value in settings.items() for word in (f"--{name}", value))]

    def ready(self) -> bool:
        """Return true if the server listens."""
        try:
            with socket.create_connection((self.address, self.port), timeout=1):
                return True
        except OSError:
            return False

    def client(self) -> Redis:
        """Return a client with the rights of an operator's redis-cli."""
        return Redis(
            host=self.address,
            port=self.port,
            password=PASSWORD,
            ssl=True,
            ssl_ca_certs=str(self._authority),
            ssl_check_hostname=False,  # connects by address, but the certificate has the name that clients use
            decode_responses=True,
            socket_timeout=5,
        )


class RedisPair:
    """A primary and its replica; `names` points clients to the primary. An async context manager."""

    def __init__(self, folder: Path, names: Names, authority: Authority) -> None:
        certificate = authority.issue(REDIS_NAME, folder / "redis")
        self._names = names
        self.primary, self.replica = (
            TlsRedis(folder / f"redis{number}", address, certificate, folder / "ca.crt")
            for number, address in enumerate(REDIS, 1)
        )

    async def __aenter__(self) -> Self:
        try:
            for server in (self.primary, self.replica):
                await server.start_beside()
            await self._follow()
        except BaseException:
            self.stop()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop both servers."""
        for server in (self.primary, self.replica):
            server.stop()

    async def fail_over(self) -> None:
        """Kill the primary, promote the replica and give it the name.

        The old primary then becomes a replica of the new one.
        """
        self.primary.kill()
        async with self.replica.client() as client:
            await client.replicaof("NO", "ONE")
        self.primary, self.replica = self.replica, self.primary
        self._names.point_redis_to(self.primary.address)
        await self.replica.start_beside()
        await self._follow()

    async def _follow(self) -> None:
        async with self.replica.client() as client:
            await client.replicaof(self.primary.address, str(self.primary.port))


class TlsPostgres(PostgresServer):
    """A Postgres that requires TLS and a password from the tasks, and neither from this process on loopback."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        super().__init__(folder, port=POSTGRES_PORT)
        self.binaries = postgres_program().parent
        self._certificate = authority.issue(POSTGRES_NAME, folder / "postgres")

    def command(self) -> list[str]:
        """The command line."""
        settings = {"max_connections": "200", "fsync": "off", "ssl": "on"}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        listen = ["-h", f"127.0.0.1,{POSTGRES}", "-p", str(self.port), "-k", ""]
        return [str(self.binaries / "postgres"), "-D", str(self.data), *listen, *words]

    def prepare(self) -> None:
        """Make the cluster, with its certificate and its pg_hba.conf."""
        super().prepare()
        for source, name in zip(self._certificate, ("server.crt", "server.key"), strict=True):
            to = self.data / name
            shutil.copyfile(source, to)
            to.chmod(0o600)
            if self.user is not None:
                os.chown(to, self.user, -1)
        with (self.data / "pg_hba.conf").open("a") as file:
            file.write("hostssl all all 0.0.0.0/0 scram-sha-256\n")

    async def start_beside(self, *, wait: float = 30.0) -> Self:
        """Start the server, and give the user `postgres` its password."""
        await super().start_beside(wait=wait)
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(f"alter user postgres password '{PASSWORD}'")
        finally:
            await connection.close()
        return self


def addresses() -> dict[str, dict[str, str]]:
    """Return the addresses of the servers as variables of each container."""
    authority = f"{CERTIFICATES}/ca.crt"
    return {
        "sidecar": {
            "REDIS_URL": f"rediss://{REDIS_NAME}:{REDIS_PORT}?ssl_ca_certs={authority}",
            "REDIS_PASSWORD": PASSWORD,
        },
        "api": {
            "DATABASE_URL": f"postgresql://postgres:{PASSWORD}@{POSTGRES_NAME}:{POSTGRES_PORT}/postgres",
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": authority,
        },
    }
