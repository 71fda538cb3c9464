"""Environment variables that libraries read, and that both containers ignore.

Containers of one task definition often share an environment. A variable that is meant for another program must neither
stop this program nor silently change its behaviour. `docs/environment.md` lists the variables. `remove_ignored` must
run before the libraries are imported, since some of them read their variables at the import. Health checks also import
this module, so it imports only modules that load quickly.
"""

import os
import warnings
from collections.abc import Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

IGNORED = frozenset(
    {
        # aiohttp and its dependencies: variables that select slower code in pure Python, or another way to send files.
        "AIOHTTP_NO_EXTENSIONS",
        "AIOHTTP_NOSENDFILE",
        "FROZENLIST_NO_EXTENSIONS",
        "MULTIDICT_NO_EXTENSIONS",
        "PROPCACHE_NO_EXTENSIONS",
        "YARL_NO_EXTENSIONS",
        # asyncio's debug mode, which aiohttp and uvloop follow: slow, with many log lines.
        "PYTHONASYNCIODEBUG",
        # A file into which Python's `ssl` writes the secrets of TLS connections. If the file cannot be written, these
        # connections fail.
        "SSLKEYLOGFILE",
        # libuv, the library under uvloop and Node.js: its number of threads, and its use of the kernel's io_uring.
        "UV_THREADPOOL_SIZE",
        "UV_USE_IO_URING",
        # The filter of Python's warnings, which can turn warnings into errors.
        "PYTHONWARNINGS",
    }
)
"""Names of variables that both containers ignore."""
IGNORED_PREFIXES = ("PROMETHEUS_", "prometheus_")
"""Prefixes of other ignored names. These variables move metrics to shared files, remove series or restrict names."""
_QUIET = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
"""Warnings that Python hides by default."""


def _nothing_else(_name: str, _value: str) -> bool:
    return False


def remove_ignored(
    environment: MutableMapping[str, str] = os.environ, *, also: Callable[[str, str], bool] = _nothing_else
) -> list[str]:
    """Remove the ignored variables from the environment, and return their names in alphabetical order.

    Args:
        environment: the variables.
        also: returns whether the calling program also ignores a variable with this name and value.
    """
    ignored = sorted(
        name
        for name, value in environment.items()
        if name in IGNORED or name.startswith(IGNORED_PREFIXES) or also(name, value)
    )
    for name in ignored:
        del environment[name]
    if "PYTHONWARNINGS" in ignored:  # the interpreter has already read it; its value `error` makes warnings fatal
        warnings.resetwarnings()
        for category in _QUIET:
            warnings.simplefilter("ignore", category)
    return ignored


def log_ignored(log: "logging.Logger", ignored: Sequence[str]) -> None:
    """Log the names of the removed variables in one line."""
    if ignored:
        log.info("ignored environment variables that libraries would read: %s", " ".join(ignored))
