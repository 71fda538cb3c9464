"""The container's health check: quick, so nothing but the standard library; silent, since ECS shows what is printed."""

from collections.abc import Mapping

from runtime.health_check import is_healthy, status_line
from sidecar.settings import control_address

_LIMIT = 2.0


def healthy(environment: Mapping[str, str]) -> bool:
    """Whether the sidecar that listens where `environment` says answers `GET /healthz` with 200.

    Raises:
        SettingsError: CONTROL_BIND cannot be used.
    """
    address = control_address(environment)
    try:
        return is_healthy(status_line(address.host, address.port, _LIMIT))
    except OSError:
        return False
