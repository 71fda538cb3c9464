"""The clock for elapsed time that every deadline of the protocol uses."""

import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed() -> float:
    """Seconds of a clock that never steps and that also runs while the machine is suspended (Linux: CLOCK_BOOTTIME)."""
    return time.clock_gettime(_CLOCK)
