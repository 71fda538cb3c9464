"""The least rights of a Redis user as docs/redis.md has them, and a user with them."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from redis import Redis

from sidecar.redis.connection import RedisConnection
from tests.sidecar.conftest import command
from tests.support.storing import at_port

DOCUMENT = (Path(__file__).parents[2] / "docs/redis.md").read_text()
[_LINE] = re.findall(r"^ACL SETUSER sidecar on >PASSWORD (.+)$", DOCUMENT, re.MULTILINE)
LEAST = _LINE.split()
_ROWS = re.findall(r"^\| `([^`]+)` \| \*\*([^*]+)\*\*", DOCUMENT, re.MULTILINE)
COSTS = {right.replace("\\|", "|"): cost for right, cost in _ROWS}
"""What is lost without each right, by the document's table."""


@contextmanager
def user(redis: Redis, rights: Sequence[str], *, database: int = 0) -> Iterator[Callable[[], RedisConnection]]:
    """A user with these rights; gives a maker of connections of that user."""
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
    """Let the user have these rights and no others."""
    command(redis, "ACL", "SETUSER", "sidecar", "reset", "on", ">secret", *rights)


def without(*rights: str) -> list[str]:
    """The least rights without these."""
    assert set(rights) <= set(LEAST), rights
    return [right for right in LEAST if right not in rights]
