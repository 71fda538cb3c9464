"""`python -m service healthcheck`, the container health check. ECS starts a new process for it every 10 s."""

import os

from runtime.addresses import Address
from runtime.escape import one_line
from runtime.health_check import is_healthy, status_line
from service.address import DEFAULT

LIMIT = 3.0
"""Limit for the service's answer, in seconds."""


def check() -> tuple[bool, str]:
    """Whether the service in this container is healthy, and a text: the status line of /healthz, or an error."""
    try:
        address = Address.parse(os.environ.get("API_BIND", "").strip() or DEFAULT)
    except ValueError as error:
        return False, f"API_BIND: {error}"
    try:
        status = status_line(address.reachable, address.port, LIMIT)
    except OSError as error:
        return False, f"no answer on port {address.port}: {error.strerror or 'timed out'}"
    return is_healthy(status), one_line(status)
