"""Switches of libraries that neither container follows: they were meant for another program in the same environment.

Containers of one task definition often share an environment. A switch must neither end nor silently change a program.
`docs/environment.md` lists the variables. `remove` has to run before the libraries are imported: some read their switch
then. A health check runs this module, too: it imports nothing that is slow.
"""

import os
import warnings
from collections.abc import Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

IGNORED = frozenset(
    {
        # aiohttp and its parts: the slower parsers in Python, and files sent in another way.
        "AIOHTTP_NO_EXTENSIONS",
        "AIOHTTP_NOSENDFILE",
        "FROZENLIST_NO_EXTENSIONS",
        "MULTIDICT_NO_EXTENSIONS",
        "PROPCACHE_NO_EXTENSIONS",
        "YARL_NO_EXTENSIONS",
        # asyncio's debug mode, which aiohttp and uvloop take over: slow, and loud.
        "PYTHONASYNCIODEBUG",
        # Every secret of TLS into a file. Where the file cannot be written, no connection is made.
        "SSLKEYLOGFILE",
        # libuv's, which Node.js programs set: the threads that look names up, and another way to the kernel.
        "UV_THREADPOOL_SIZE",
        "UV_USE_IO_URING",
        # Which Python warnings are errors.
        "PYTHONWARNINGS",
    }
)
"""Names of variables that no container follows."""
IGNORED_PREFIXES = ("PROMETHEUS_", "prometheus_")
"""Beginnings of such names: metrics in files that several processes share, and other names of metrics."""
_QUIET = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
"""Warnings that Python does not show unless it is told to."""


def _nothing_else(_name: str, _value: str) -> bool:
    return False


def remove(
    environment: MutableMapping[str, str] = os.environ, *, also: Callable[[str, str], bool] = _nothing_else
) -> list[str]:
    """Remove the variables that are ignored, for this process and its libraries; returns their names in order.

    Args:
        environment: the variables.
        also: whether a program ignores a variable of this name and value that the other program may follow.
    """
    ignored = sorted(
        name
        for name, value in environment.items()
        if name in IGNORED or name.startswith(IGNORED_PREFIXES) or also(name, value)
    )
    for name in ignored:
        del environment[name]
    if "PYTHONWARNINGS" in ignored:  # the interpreter has read it already: `error` would end the process over a warning
        warnings.resetwarnings()
        for category in _QUIET:
            warnings.simplefilter("ignore", category)
    return ignored


def log_ignored(log: "logging.Logger", ignored: Sequence[str]) -> None:
    """Name the variables that were removed, in one line."""
    if ignored:
        log.info("ignored environment variables, which libraries would read: %s", " ".join(ignored))
