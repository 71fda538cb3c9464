"""The requirements of a rehearsal on this machine, checked before the start."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.rehearse.cgroups import is_unified
from ops.rehearse.podman import configuration
from ops.rehearse.programs import RehearsalError
from ops.rehearse.servers import postgres_program, redis_program

TOOLS = {
    "podman": "podman",
    "conmon": "conmon",
    "runc": "runc",
    "catatonit": "catatonit",
    "haproxy": "haproxy",
    "ip": "iproute2",
    "iptables": "iptables",
    "nsenter": "util-linux",
}
"""Each required program, and the Debian package that contains it. runc is required only with cgroups of version 1."""

LOCK = Path("/run/rehearse.lock")


def check() -> None:
    """Check that a rehearsal can run on this machine.

    Raises:
        RehearsalError: a right or a program is missing.
        ServerError: a server is missing.
    """
    if os.geteuid() != 0:
        raise RehearsalError("network namespaces and containers need root; run as root")
    unified = is_unified()
    for tool, package in TOOLS.items():
        if tool == "runc" and unified:
            continue
        if shutil.which(tool) is None:
            raise RehearsalError(f"{tool} is not installed; Debian has it in the package {package}")
    redis_program()
    postgres_program()


def configure_podman(folder: Path) -> None:
    """Write the rehearsal's own configuration of podman, and select it in this process's environment."""
    file = folder / "containers.conf"
    file.write_text(configuration(unified=is_unified()))
    os.environ["CONTAINERS_CONF"] = str(file)


@contextmanager
def only_one() -> Iterator[None]:
    """Lock the machine for one rehearsal or one `make sizes`, because both use the same network.

    Raises:
        RehearsalError: another one runs.
    """
    with LOCK.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RehearsalError("another rehearsal or `make sizes` runs on this machine") from error
        yield
