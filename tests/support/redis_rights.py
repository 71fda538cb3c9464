"""The minimum rights of a Redis user, as docs/redis.md lists them, and a user that has them."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from redis import Redis

from ops.local.servers import RedisServer
from sidecar.redis.connection import RedisConnection
from tests.sidecar.conftest import command
from tests.support.redis_cluster import send_command
from tests.support.storing import at_port

DOCUMENT = (Path(__file__).parents[2] / "docs/redis.md").read_text()
[_LINE] = re.findall(r"^ACL SETUSER sidecar on >PASSWORD (.+)$", DOCUMENT, re.MULTILINE)
LEAST = _LINE.split()
OF_A_CLUSTER = ("+cluster|slots", "+asking")
OF_SENTINELS = ("+role",)
"""Rights that the user needs in addition to the minimum: for a cluster, and for a Redis with sentinels."""
[_SENTINELS] = re.findall(r"^ACL SETUSER asker on >PASSWORD (.+)$", DOCUMENT, re.MULTILINE)
SENTINELS_OWN = _SENTINELS.split()
"""The minimum rights of a user of the sentinels themselves."""
_ROWS = re.findall(r"^\| `([^`]+)` \| \*\*([^*]+)\*\*", DOCUMENT, re.MULTILINE)
COSTS = {right.replace("\\|", "|"): cost for right, cost in _ROWS}
"""The consequence of each missing right, from the document's table."""


@contextmanager
def user(redis: Redis, rights: Sequence[str], *, database: int = 0) -> Iterator[Callable[[], RedisConnection]]:
    """A user with these rights; yields a factory of the user's connections."""
    give(redis, rights)
    try:
        port = redis.connection_pool.connection_kwargs["port"]
        make = at_port(port, username="sidecar", password="secret")

        def connect() -> RedisConnection:
            connection = make()
            connection.db = database
            return connection

        yield connect
    finally:
        command(redis, "ACL", "DELUSER", "sidecar")


def give(redis: Redis, rights: Sequence[str]) -> None:
    """Give the user exactly these rights."""
    command(redis, "ACL", "SETUSER", "sidecar", "reset", "on", ">secret", *rights)


def without(*rights: str) -> list[str]:
    """The minimum rights without `rights`."""
    assert set(rights) <= set(LEAST), rights
    return [right for right in LEAST if right not in rights]


def allow(servers: Sequence[RedisServer], *more: str) -> None:
    """Give the user the minimum rights and the rights `more`, on each server."""
    for server in servers:
        answer = send_command(server, "ACL", "SETUSER", "sidecar", "reset", "on", ">secret", *LEAST, *more)
        assert answer == "OK", answer
