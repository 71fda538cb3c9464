"""A real primary, its replicas and their sentinels on loopback, with short timings."""

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from ops.local.servers import RedisServer
from sidecar.server_kind import Sentinels
from tests.faults.replication import ARGUMENTS, in_step
from tests.support.redis_cluster import send_command
from tests.support.waiting import eventually

MASTER = "portfolio"
DOWN_AFTER = 1_000
"""Milliseconds of silence after which a sentinel considers the primary dead."""


class SentinelServer(RedisServer):
    """A sentinel that watches the primary at a port."""

    def __init__(
        self,
        folder: Path,
        watched: int,
        *,
        quorum: int,
        down_after: int,
        port: int | None = None,
        failover_timeout: int = 6_000,
        binary: Path | None = None,
    ) -> None:
        super().__init__(folder, port=port, binary=binary)
        self._watched = watched
        self._quorum = quorum
        self._down_after = down_after
        self._failover_timeout = failover_timeout

    def command(self) -> list[str]:
        """The command line.

        The configuration file is written only before the first start, since the sentinel changes it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "sentinel.conf"
        if not file.exists():
            file.write_text(
                f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
                f"sentinel monitor {MASTER} 127.0.0.1 {self._watched} {self._quorum}\n"
                f"sentinel down-after-milliseconds {MASTER} {self._down_after}\n"
                f"sentinel failover-timeout {MASTER} {self._failover_timeout}\n"
            )
        return [str(self.binary), str(file), "--sentinel"]


class Group:
    """A group of servers, and the sentinels that report the primary of the group."""

    def __init__(self, servers: list[RedisServer], sentinels: list[SentinelServer]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    @property
    def kind(self) -> Sentinels:
        """The kind of Redis for a sidecar: the addresses of the sentinels, and the name of the primary."""
        return Sentinels(tuple(("127.0.0.1", sentinel.port) for sentinel in self.sentinels), MASTER)

    @property
    def environment(self) -> dict[str, str]:
        """The addresses of the sentinels and the name of the primary, as environment variables."""
        listed = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return {"REDIS_SENTINELS": listed, "REDIS_SENTINEL_MASTER": MASTER}

    def primary(self, sentinel: int = 0) -> RedisServer:
        """The server that a sentinel names as the primary."""
        _, port = send_command(self.sentinels[sentinel], "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
        return next(server for server in self.servers if server.port == int(port))

    def fail_over(self, sentinel: int = 0) -> None:
        """Start a failover as an operator does. The old primary stays alive, and becomes a replica only later."""
        answer = send_command(self.sentinels[sentinel], "SENTINEL", "FAILOVER", MASTER)
        assert answer == "OK", answer

    def role(self, server: RedisServer) -> str:
        """The role that a server reports; empty while it reports none, such as during a failover."""
        answer = send_command(server, "ROLE")
        return str(answer[0]) if isinstance(answer, list) else ""


def _knows(sentinel: RedisServer, *, sentinels: int, replicas: int) -> bool:
    fields = send_command(sentinel, "SENTINEL", "MASTER", MASTER)
    if not isinstance(fields, list):
        return False
    reported = dict(zip(fields[::2], fields[1::2], strict=True))
    return (reported["num-other-sentinels"], reported["num-slaves"]) == (str(sentinels - 1), str(replicas))


@asynccontextmanager
async def redis_sentinels(
    folder: Path,
    *,
    replicas: int = 1,
    sentinels: int = 3,
    down_after: int = DOWN_AFTER,
    binary: Path | None = None,
    arguments: tuple[str, ...] = (),
) -> AsyncIterator[Group]:
    """A group whose replicas are in sync and whose sentinels know each other."""
    with ExitStack() as stack:
        servers: list[RedisServer] = []
        for number in range(1 + replicas):
            follows = () if not servers else ("--replicaof", "127.0.0.1", str(servers[0].port))
            options = (*ARGUMENTS, *arguments, *follows)
            server = RedisServer(folder / f"server{number}", binary=binary, arguments=options)
            servers.append(stack.enter_context(server))
        await eventually(lambda: in_step(*servers))
        watching = [
            SentinelServer(
                folder / f"sentinel{number}",
                servers[0].port,
                quorum=sentinels // 2 + 1,
                down_after=down_after,
                binary=binary,
            )
            for number in range(sentinels)
        ]
        for sentinel in watching:
            stack.enter_context(sentinel)
        await eventually(lambda: all(_knows(each, sentinels=sentinels, replicas=replicas) for each in watching))
        yield Group(servers, watching)
