"""The container's health check: quick, so nothing but the standard library; silent, since ECS shows what is printed."""

import socket
from collections.abc import Mapping

from sidecar.settings import control_address

_LIMIT = 2.0


def healthy(environment: Mapping[str, str]) -> bool:
    """Whether the sidecar that listens where `environment` says answers `GET /healthz` with 200.

    Raises:
        SettingsError: CONTROL_BIND cannot be used.
    """
    address = control_address(environment)
    try:
        with socket.create_connection((address.host, address.port), timeout=_LIMIT) as connection:
            connection.sendall(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
            return connection.makefile("rb").readline(1024).split()[1:2] == [b"200"]
    except OSError:
        return False
