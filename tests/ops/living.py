"""A check that a process still runs."""

import psutil


def lives(process: int | psutil.Process) -> bool:
    """Return true if this process or pid still runs; a zombie does not count as running.

    The process may end during the check.
    """
    try:
        known = psutil.Process(process) if isinstance(process, int) else process
        return known.is_running() and known.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
