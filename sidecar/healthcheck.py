"""The container's health check. ECS starts a new process for each check, so this module imports no large library.

The result is the exit status. An invalid setting is also printed, because ECS shows what a health check prints.
"""

from collections.abc import Mapping

from runtime.health_check import is_healthy, status_line
from sidecar.settings import control_address

_LIMIT = 2.0


def healthy(environment: Mapping[str, str]) -> bool:
    """Whether the sidecar at the control address in `environment` answers `GET /healthz` with 200.

    Raises:
        SettingsError: CONTROL_BIND cannot be used.
    """
    address = control_address(environment)
    try:
        return is_healthy(status_line(address.host, address.port, _LIMIT))
    except OSError:
        return False
