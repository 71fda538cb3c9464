"""A Redis server, its replicas, and the promotion of a replica by an operator."""

from pathlib import Path

from redis.exceptions import ConnectionError as Unreachable

from ops.local.servers import RedisServer
from tests.sidecar.conftest import client_of, command

ARGUMENTS = ("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")


def replicating(folder: Path, *, of: int | None = None) -> RedisServer:
    """Return a server that synchronizes without a delay; with `of`, a replica of the server at this port."""
    return RedisServer(folder, arguments=ARGUMENTS if of is None else (*ARGUMENTS, "--replicaof", "127.0.0.1", str(of)))


def promote(server: RedisServer) -> None:
    with client_of(server) as redis:
        command(redis, "REPLICAOF", "NO", "ONE")


def in_step(*servers: RedisServer) -> bool:
    """Whether every replica has received the whole stream of the first server."""
    offsets = set()
    for server in servers:
        with client_of(server) as redis:
            try:
                info = redis.info("replication")
            except Unreachable:
                return False
        if server is not servers[0] and info.get("master_link_status") != "up":
            return False
        offsets.add((info["master_replid"], info["master_repl_offset"]))
    return len(offsets) == 1
