"""The environment of each container on this machine: the definition's variables, adapted to this machine."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from ops.local.addresses import is_address, shifted
from ops.local.definition import ContainerDefinition

LIVELY = {"MARKET_CALENDAR": "24/7", "TRACKER_INTERVAL": "2", "PRICE_SOURCE": "simulated"}
"""Settings that show activity: the market never closes, and values change every two seconds."""

OPEN = {"AUTH": "off"}
"""Settings with which requests need no access token, so that the printed commands work.

A caller who sets AUTH=supabase must also set SUPABASE_URL.
"""

PASSED_ON = {
    "SUPABASE_JWT_SECRET": "SUPABASE_URL",
    "APCA_API_KEY_ID": "PRICE_SOURCE",
    "APCA_API_SECRET_KEY": "PRICE_SOURCE",
}
"""The caller's secrets. Each goes to the containers whose definition has the variable on the right."""

FIXED = {"LOG_FORMAT": "text"}
"""Settings that the caller cannot change. The console finds warnings and errors only in logs of this format."""

_IMAGE = {"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", "TZ": "UTC"}
_OF_THE_MACHINE = ("HOME", "TMPDIR", "LD_LIBRARY_PATH")


def container_environment(
    container: ContainerDefinition, *, shift: int, caller: Mapping[str, str], backends: Mapping[str, str]
) -> dict[str, str]:
    """Build a container's whole environment, except for the metadata address of its task.

    The caller can set any variable that the definition gives the container, except for addresses and the variables in
    `FIXED`. The definition's variables for Redis and Postgres belong to production: `backends` replaces them.

    Args:
        container: the container.
        shift: the number that is added to each port.
        caller: the environment of `make run`.
        backends: the variables of Redis (REDIS_HOST and REDIS_PORT, or REDIS_URL and the variables in
            `backends.ACCOUNT`) and of Postgres (DATABASE_URL). A container gets the variables of each server that its
            definition uses.
    """
    defined = {name: value for name, value in container.variables.items() if _server(name) is None}
    moved = {name: value for name, value in shifted(container, shift).items() if name in defined}
    servers = {_server(name) for name in (*container.variables, *(entry.name for entry in container.secrets))} - {None}
    lively = {name: value for name, value in (LIVELY | OPEN).items() if name in defined}
    chosen = {name: caller[name] for name, value in defined.items() if caller.get(name) and not is_address(name, value)}
    passed = {name: caller[name] for name, beside in PASSED_ON.items() if caller.get(name) and beside in defined}
    fixed = {name: value for name, value in FIXED.items() if name in defined}
    found = {name: value for name, value in backends.items() if _server(name) in servers}
    return machine(caller) | moved | lively | chosen | passed | fixed | found


def _server(variable: str) -> str | None:
    """The server whose address, account or certificate the variable holds: Redis, Postgres or None."""
    if variable.startswith("REDIS_") and variable != "REDIS_TIMEOUT":
        return "Redis"
    return "Postgres" if variable == "DATABASE_URL" or variable.startswith("PG") else None


def machine(caller: Mapping[str, str]) -> dict[str, str]:
    """The variables that an image sets on ECS. Here PATH begins with the folder of this interpreter."""
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join([here, caller.get("PATH", os.defpath)])
    return {name: caller[name] for name in _OF_THE_MACHINE if name in caller} | _IMAGE | {"PATH": path}
