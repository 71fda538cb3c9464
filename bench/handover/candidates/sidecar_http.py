"""A program with a sidecar and `http.client` alone: `python -m bench.handover.candidates.sidecar_http URL`.

This is the smallest client: the sidecar holds a request of the client while it follows and while it leads. The client
resigns after its work.
"""

import json
import os
import select
import signal
import sys
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from bench.handover.candidates.stage import log, now, report

HELD = 20
"""Seconds for which the sidecar may hold a request."""


def ask(connection: HTTPConnection, version: str | None) -> None:
    """Send a request. With a version, the sidecar holds it until the version changes, for at most `HELD` seconds."""
    query = f"?wait={HELD}&version={version}" if version else ""
    connection.request("GET", f"/is-leader/bench{query}")


def answer(connection: HTTPConnection) -> dict[str, Any]:
    """Read the answer to the last request."""
    found: dict[str, Any] = json.loads(connection.getresponse().read())
    return found


def work(connection: HTTPConnection, version: str, signals: int) -> float | None:
    """Work until a signal, and keep asking; returns the time of the end, or None if the term ended first."""
    report("began", now())
    ask(connection, version)
    while True:
        readable, _, _ = select.select([connection.sock, signals], [], [])
        if signals in readable:
            os.read(signals, 1)
            return now()
        reply = answer(connection)
        if not reply["is_leader"]:
            return None
        ask(connection, reply["version"])


def main(url: str) -> None:
    """Campaign after each line on standard input."""
    log()
    signals, written = os.pipe()
    os.set_blocking(written, False)
    signal.set_wakeup_fd(written)
    signal.signal(signal.SIGTERM, lambda *_: None)
    address = urlsplit(url).netloc
    asking, resigning = HTTPConnection(address), HTTPConnection(address)
    resigning.connect()
    report("ready", now())
    for _ in sys.stdin:
        ended = None
        while ended is None:
            ask(asking, None)
            while not (reply := answer(asking))["is_leader"]:
                ask(asking, reply["version"])
            ended = work(asking, reply["version"], signals)
            resigning.request("POST", "/resign/bench", headers={"X-Lease-Client": "bench"})
            resigning.getresponse().read()
        answer(asking)
        report("ended", ended)


if __name__ == "__main__":
    main(sys.argv[1])
