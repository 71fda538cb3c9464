"""A program beside a sidecar, with `http.client` alone: `python -m bench.handover.candidates.sidecar_http URL`.

This is the least that a program has to do: hold a request while it follows and while it leads, and resign.
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
    """Send a question, which the sidecar answers when the version has changed."""
    query = f"?wait={HELD}&version={version}" if version else ""
    connection.request("GET", f"/is-leader/bench{query}")


def answer(connection: HTTPConnection) -> dict[str, Any]:
    """Read the answer to the last question."""
    found: dict[str, Any] = json.loads(connection.getresponse().read())
    return found


def work(connection: HTTPConnection, version: str, signals: int) -> float | None:
    """Work until a signal, and keep asking; returns the time of the end, or None if the term has ended before."""
    report("began", now())
    ask(connection, version)
    while True:
        readable, _, _ = select.select([connection.sock, signals], [], [])
        if signals in readable:
            os.read(signals, 1)
            return now()
        said = answer(connection)
        if not said["is_leader"]:
            return None
        ask(connection, said["version"])


def main(url: str) -> None:
    """Campaign after each line of the benchmark."""
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
            while not (said := answer(asking))["is_leader"]:
                ask(asking, said["version"])
            ended = work(asking, said["version"], signals)
            resigning.request("POST", "/resign/bench", headers={"X-Lease-Client": "bench"})
            resigning.getresponse().read()
        answer(asking)
        report("ended", ended)


if __name__ == "__main__":
    main(sys.argv[1])
