"""Whether a process is still there."""

import psutil


def lives(process: int | psutil.Process) -> bool:
    """Whether this process, or the one of this pid, still runs; a zombie does not. It may end at any moment in here."""
    try:
        known = psutil.Process(process) if isinstance(process, int) else process
        return known.is_running() and known.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
