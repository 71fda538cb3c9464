"""`python -m service healthcheck`, the container health check. ECS starts a new process for it every few seconds."""

import os
import socket

from runtime.escape import one_line
from service.address import DEFAULT, Address

LIMIT = 3.0
"""Limit for the service's answer, in seconds."""


def check() -> tuple[bool, str]:
    """Ask this container's service for /healthz; returns whether it is healthy, and its status line or the error."""
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
    """The status line of the answer. Importing an HTTP client would take longer than the whole check."""
    with socket.create_connection((address.reachable, address.port), timeout=LIMIT) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        with connection.makefile("rb") as answer:
            return answer.readline(1024).decode("latin-1").strip()
