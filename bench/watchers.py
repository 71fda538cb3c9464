"""A minimal fleet with the watches of sidecars: bare connections to Redis, without a sidecar.

`python -m bench.watchers COUNT URL MODE`. With MODE `direct` or `relayed`, the process has the lowest priority, and its
members have that watch and drop all messages. With MODE `claimer`, it has one member with a direct watch, which tries
to set the key after each message. A direct watch has tracking of the key in broadcast mode, and the channel
of releases; a relayed watch has only a channel on which nothing is published here. The process prints `ready T` when
all members watch, and `began T` when Redis confirms a claim. T is in seconds of the machine's monotonic clock.
"""

import os
import resource
import selectors
import socket
import sys
from urllib.parse import urlsplit

from bench.candidates import emit

KEY = "limit"
RELEASE = f"redis.call('DEL', '{KEY}') redis.call('PUBLISH', '{KEY}:changed', 'released') return 1"
"""The smallest script of a release."""
CLAIM = f"SET {KEY} claimed NX PX 60000\r\n".encode()
READ = 65_536
"""Bytes that are read at once."""


def connected(redis_url: str) -> socket.socket:
    """Return a connection that sends each command at once."""
    parts = urlsplit(redis_url)
    connection = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def watching(redis_url: str, *, directly: bool) -> socket.socket:
    """Return a connection with a direct or a relayed watch."""
    connection = connected(redis_url)
    if not directly:
        _answer(connection, f"SUBSCRIBE {KEY}:vacant:changed")
        return connection
    number = _answer(connection, "CLIENT ID").removeprefix(b":").decode()
    _answer(connection, f"CLIENT TRACKING ON REDIRECT {number} BCAST PREFIX {KEY}")
    _answer(connection, "SUBSCRIBE __redis__:invalidate")
    _answer(connection, f"SUBSCRIBE {KEY}:changed")
    return connection


def _answer(connection: socket.socket, command: str) -> bytes:
    """Send a command, and return Redis's answer."""
    connection.sendall(command.encode() + b"\r\n")
    answer = connection.recv(READ)
    if answer.startswith(b"-"):
        raise OSError(f"{command}: {answer.decode().strip()}")
    return answer.strip()


def drop_messages(watches: list[socket.socket]) -> None:
    """Read and drop all messages until Redis closes the connections."""
    with selectors.DefaultSelector() as selector:
        for watch in watches:
            selector.register(watch, selectors.EVENT_READ, watch)
        while True:
            for ready, _ in selector.select():
                if not ready.data.recv(READ):
                    return


def claim(watch: socket.socket, calls: socket.socket) -> None:
    """Claim the key after each message, since the key may then be free, until Redis closes the connections."""
    while watch.recv(READ):
        calls.sendall(CLAIM)
        if calls.recv(READ).startswith(b"+OK"):
            emit("began")


def main(count: int, redis_url: str, mode: str) -> None:
    """Watch until Redis closes the connections."""
    watches = [watching(redis_url, directly=mode != "relayed") for _ in range(count)]
    calls = connected(redis_url)
    emit("ready")
    if mode == "claimer":
        claim(watches[0], calls)
    else:
        drop_messages(watches)


if __name__ == "__main__":
    members, url, of = sys.argv[1:]
    if of != "claimer":
        os.nice(19)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    main(int(members), url, of)
