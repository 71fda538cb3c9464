"""The environment of each container on this machine: the definition's, with what must differ here."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from ops.local.addresses import is_address, shifted
from ops.local.definition import ContainerDefinition

LIVELY = {"MARKET_CALENDAR": "24/7", "TRACKER_INTERVAL": "2", "PRICE_SOURCE": "simulated"}
"""So that something is to be seen: the market never closes and values move every two seconds."""

OPEN = {"AUTH": "off"}
"""So that the lines to paste need no access token; whoever sets AUTH=supabase sets SUPABASE_URL too."""

PASSED_ON = {
    "SUPABASE_JWT_SECRET": "SUPABASE_URL",
    "APCA_API_KEY_ID": "PRICE_SOURCE",
    "APCA_API_SECRET_KEY": "PRICE_SOURCE",
}
"""The caller's own secrets: each for a container that has the other variable."""

FIXED = {"LOG_FORMAT": "text"}
"""The screen reads the logs."""

_IMAGE = {"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", "TZ": "UTC"}
_OF_THE_MACHINE = ("HOME", "TMPDIR", "LD_LIBRARY_PATH")


def container_environment(
    container: ContainerDefinition, *, shift: int, caller: Mapping[str, str], backends: Mapping[str, str]
) -> dict[str, str]:
    """The whole environment of a container, but for its task's metadata address.

    The caller may set any variable that the definition gives the container, except for addresses. What the definition
    says of Redis and Postgres is production's: it is never passed on, `backends` takes its place.

    Args:
        container: whose.
        shift: how far its ports are moved.
        caller: the environment of `make run`.
        backends: where Redis and Postgres are: REDIS_HOST and REDIS_PORT, or REDIS_URL, REDIS_USERNAME and
            REDIS_PASSWORD; DATABASE_URL. A container gets those of a server that its definition speaks of.
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
    """Whose address, account or certificate the variable holds, Redis's or Postgres's; None for any other."""
    if variable.startswith("REDIS_") and variable != "REDIS_TIMEOUT":
        return "Redis"
    return "Postgres" if variable == "DATABASE_URL" or variable.startswith("PG") else None


def machine(caller: Mapping[str, str]) -> dict[str, str]:
    """What a container's image would give it: this interpreter first on the path, and little else."""
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join([here, caller.get("PATH", os.defpath)])
    return {name: caller[name] for name in _OF_THE_MACHINE if name in caller} | _IMAGE | {"PATH": path}
