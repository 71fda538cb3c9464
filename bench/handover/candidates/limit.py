"""The limit of a hand-over through Redis: `python -m bench.handover.candidates.limit URL`.

After its work, a program runs one script, which deletes a key and publishes a message. The other program waits for the
message and begins its work at once, without asking Redis for the key. So this is not a lock, and it works with two
programs only.
"""

import signal
import socket
import sys
from urllib.parse import urlsplit

from bench.handover.candidates.stage import SIGNALS, now, prepare, report, turns

RELEASE = "redis.call('del', KEYS[1]) return redis.call('publish', KEYS[1], 'released')"
MESSAGE_LINES = 7
"""Number of lines of a message: an array of three texts."""


class Connection:
    """A connection to Redis with one command at a time."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self.socket = socket.create_connection((address.hostname or "", address.port or 6379))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self.socket.makefile("rb")

    def call(self, *words: str) -> bytes:
        """Send a command; returns the first line of the answer."""
        parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        self.socket.sendall(f"*{len(words)}\r\n{parts}".encode())
        return self.line()

    def line(self) -> bytes:
        """Read a line."""
        return self._file.readline().strip()

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self.socket.close()


def main(url: str) -> None:
    """After each line on standard input, wait for the other program's release."""
    prepare()
    calls = Connection(url)
    calls.call("SCRIPT", "LOAD", RELEASE)
    release = calls.line().decode()
    for _ in turns():
        messages = Connection(url)
        messages.call("SUBSCRIBE", "bench")
        for _ in range(5):
            messages.line()
        if calls.call("SET", "bench", "held", "NX") != b"+OK":
            for _ in range(MESSAGE_LINES):
                messages.line()
        report("began", now())
        calls.call("SET", "bench", "held")
        messages.close()
        signal.sigwait(SIGNALS)
        ended = now()
        calls.call("EVALSHA", release, "1", "bench")
        report("ended", ended)


if __name__ == "__main__":
    main(sys.argv[1])
