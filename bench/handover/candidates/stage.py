"""The protocol between the benchmark and a candidate.

The benchmark writes a line to the candidate's standard input when the candidate may campaign. It sends SIGTERM when the
work of the leader has to stop. The candidate then ends its work, releases the lease and waits for the next line. The
candidate reports each event on standard output as a word and a time of the monotonic clock, which all processes share:

- `ready`: the program has started and waits for a line.
- `began`: the first line of code of the work.
- `ended`: the line of code after the work. The candidate reports it once the lease is released, so that the report
  delays nothing.
- `renewed`: the lease was extended by a request sent at that time. Only candidates that renew by themselves report it.
"""

import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator

SIGNALS = {signal.SIGTERM}


def now() -> float:
    """Return seconds of the monotonic clock."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def report(word: str, at: float) -> None:
    """Report an event."""
    os.write(sys.stdout.fileno(), f"{word} {at!r}\n".encode())


def log() -> None:
    """Log records of level INFO and above to standard error, as a program in production does."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")


def prepare() -> None:
    """Set up the log, and block SIGTERM in this thread and in the threads that it starts: `work` waits for SIGTERM."""
    log()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def turns(polls_every: float = 0.0) -> Iterator[None]:
    """Yield each time the candidate may campaign.

    For a lock that polls, the first poll comes after a random part of the pause between two polls. Otherwise the
    candidates would poll at the same moments, since each candidate begins to poll when another one begins its work.
    """
    report("ready", now())
    for _ in sys.stdin:
        time.sleep(random.uniform(0, polls_every))
        yield


def work(renew: Callable[[], object] | None = None, every: float = 0.0) -> float:
    """Work until SIGTERM, and renew the lease every `every` seconds; returns the time of the end."""
    report("began", now())
    if renew is None:
        signal.sigwait(SIGNALS)
    else:
        while signal.sigtimedwait(SIGNALS, every) is None:
            renew()
    return now()
