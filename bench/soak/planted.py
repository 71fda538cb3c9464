"""A sidecar with planted faults: `python -m bench.soak.planted FAULT,FAULT`.

A soak of such sidecars must find each fault.

The faults act at the first reply of Redis, and at the start and the end of each term: `descriptors`, `tasks`, `memory`
and `threads` leak, and `log` logs a warning.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from sidecar import __main__ as product
from sidecar.telemetry import Telemetry, log

LEAD = "lead"
"""Name of the fault that the soak itself plants: it deletes the keys of leases."""
LEAKED = 128 * 1024
"""Size of each memory leak, in bytes."""

_kept: list[object] = []


def _thread() -> None:
    threading.Thread(target=threading.Event().wait, daemon=True).start()


PLANTS: dict[str, Callable[[], object]] = {
    "descriptors": lambda: os.open(os.devnull, os.O_RDONLY),
    "tasks": lambda: _kept.append(asyncio.create_task(asyncio.Event().wait())),
    "memory": lambda: _kept.append(b"\1" * LEAKED),
    "threads": _thread,
    "log": lambda: log.warning("a planted warning"),
}
"""Action of each fault."""


def main(faults: list[str], arguments: list[str]) -> int:
    """Run the sidecar with the faults; returns the exit status of its own command line."""
    transition = Telemetry.transition

    def faulty(self: Telemetry, *fields: Any) -> None:
        transition(self, *fields)
        for fault in faults:
            PLANTS[fault]()

    with patch.object(Telemetry, "transition", faulty):
        return product.main(arguments)


if __name__ == "__main__":
    sys.exit(main([fault for fault in sys.argv[1].split(",") if fault in PLANTS], sys.argv[2:]))
