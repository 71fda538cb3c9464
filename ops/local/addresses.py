"""Ports of a task on this machine: the ports of the definition, shifted for each task, on loopback only.

In the cloud each task has its own address. Here all tasks share one address, so the port of every address in a
container's environment is shifted: `*_BIND` (host:port to listen on) and `*_URL` on loopback (another container of the
task).
"""

import errno
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

import psutil

from ops.local.definition import ContainerDefinition, DefinitionError
from ops.local.settings import UsageError

LOOPBACK = "127.0.0.1"


def is_address(name: str, value: str) -> bool:
    """Return true if a container's variable is an address that differs from task to task."""
    if not name.endswith("_URL"):
        return name.endswith("_BIND")
    try:
        host, port = urlsplit(value).hostname, urlsplit(value).port
    except ValueError:  # the program that reads the variable reports the error
        return False
    return host in (LOOPBACK, "::1", "localhost") and port != 0


def shifted(container: ContainerDefinition, shift: int) -> dict[str, str]:
    """The container's environment with each port moved by `shift` and each listener on loopback."""
    moved = {}
    for name, value in container.variables.items():
        if is_address(name, value):
            if name.endswith("_BIND"):
                value = f"{LOOPBACK}:{_port(container, name, value) + shift}"
            else:
                url = urlsplit(value)
                value = url._replace(netloc=f"{LOOPBACK}:{(url.port or 80) + shift}").geturl()
        moved[name] = value
    return moved


def listeners(environment: Mapping[str, str]) -> dict[str, int]:
    """The ports that a shifted environment makes its container listen on, by variable."""
    return {name: int(value.rpartition(":")[2]) for name, value in environment.items() if name.endswith("_BIND")}


def check_free(port: int, user: str) -> None:
    """Raise UsageError if nothing can listen on `port`; `user` names what needs the port."""
    if not 0 < port < 65536:
        raise UsageError(f"RUN_PORT_OFFSET moves {user} to port {port}, which does not exist")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # lingering connections do not matter
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UsageError(
                    f"port {port}, which {user} needs, is in use{_owner(port)}; stop it, or set RUN_PORT_OFFSET=1000"
                ) from error
            raise UsageError(f"port {port}, which {user} needs, cannot be used: {error.strerror}") from error


def _owner(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            listening = connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,)
            if listening and connection.pid is not None:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass  # another user's process: the error is useful without its name
    return ""


def _port(container: ContainerDefinition, name: str, value: str) -> int:
    host, _, port = value.rpartition(":")
    if not (host and port.isascii() and port.isdecimal()):
        raise DefinitionError(f"container {container.name}: environment {name}={value!r} is not host:port")
    return int(port)
