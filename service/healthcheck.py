"""`python -m service healthcheck`: for the container health check of ECS, which starts it anew every few seconds."""

import os
import socket

from runtime.escape import one_line
from service.address import DEFAULT, Address

LIMIT = 3.0
"""Seconds that the service has to answer."""


def check() -> tuple[bool, str]:
    """Ask /healthz of the service in this container: whether it is well, and the answer's first line or what failed."""
    try:
        address = Address.parse(os.environ.get("API_BIND", "").strip() or DEFAULT)
    except ValueError as error:
        return False, f"API_BIND: {error}"
    try:
        status = _status_line(address)
    except OSError as error:
        return False, f"no answer on port {address.port}: {error.strerror or 'timed out'}"
    return status.startswith("HTTP/1.1 200 "), one_line(status)


def _status_line(address: Address) -> str:
    """The first line of the answer; a bare socket, because importing an HTTP client takes longer than the request."""
    with socket.create_connection((address.reachable, address.port), timeout=LIMIT) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        with connection.makefile("rb") as answer:
            return answer.readline(1024).decode("latin-1").strip()
