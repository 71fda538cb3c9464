"""The checks of an image: import its modules, start its program, wait for its health check, and stop the program."""

import socket
from collections.abc import Mapping

from ops.images.engine import Engine, ImageError

_IMPORT = """
import importlib, pkgutil, sys
names = []
for top in sys.argv[1:]:
    package = importlib.import_module(top)
    inside = getattr(package, "__path__", [])
    names += [top, *(each.name for each in pkgutil.walk_packages(inside, top + "."))]
names = [name for name in names if not name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""

_LIVE = """
import os, signal, subprocess, sys, time
program = [sys.executable, "-m", sys.argv[1]]
process = subprocess.Popen(program, stdout=subprocess.DEVNULL)
until = time.monotonic() + 60
while subprocess.run([*program, "healthcheck"]).returncode != 0:
    if process.poll() is not None or time.monotonic() > until:
        sys.exit(f"{sys.argv[1]} is not healthy; its exit status is {process.poll()}")
    time.sleep(0.2)
process.send_signal(signal.SIGTERM)
sys.exit(process.wait(60))
"""


def check_imports(engine: Engine, image: str, packages: tuple[str, ...]) -> str:
    """Import every module of the packages, except `__main__`, inside the image; returns a summary.

    Raises:
        ImageError: a module cannot be imported.
    """
    ended = engine.run(image, ["python", "-c", _IMPORT, *packages], {})
    if ended.returncode != 0:
        raise ImageError(f"{image}: a module cannot be imported:\n{ended.stderr.strip()[-1000:]}")
    return f"{ended.stdout.strip()} modules can be imported"


def check_health(engine: Engine, image: str, program: str, environment: Mapping[str, str]) -> str:
    """Start the program inside the image, wait for its health check, stop it with SIGTERM; returns a summary.

    Raises:
        ImageError: the program is not healthy within a minute, or its exit status is not 0.
    """
    ended = engine.run(image, ["python", "-c", _LIVE, program], environment)
    if ended.returncode != 0:
        raise ImageError(f"{image}: the health check in the image failed:\n{ended.stderr.strip()[-1000:]}")
    return "starts, passes its health check, and ends with status 0 at SIGTERM"


def free_port() -> int:
    """Return a free port. A container without its own network shares the host's ports."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
