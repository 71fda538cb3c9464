"""The environment of each container on this machine: the definition's, with what must differ here."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from ops.local.addresses import shifted
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
_ADDRESSES = {"REDIS_HOST", "REDIS_PORT"}


def container_environment(
    container: ContainerDefinition, *, shift: int, caller: Mapping[str, str], backends: Mapping[str, str]
) -> dict[str, str]:
    """The whole environment of a container, but for its task's metadata address.

    The caller may set any variable that the definition gives the container, except for addresses.

    Args:
        container: whose.
        shift: how far its ports are moved.
        caller: the environment of `make run`.
        backends: where Redis and Postgres are: REDIS_HOST and REDIS_PORT or REDIS_URL, DATABASE_URL, REDIS_PASSWORD.
    """
    defined = container.variables
    secret = {entry.name for entry in container.secrets}
    moved = shifted(container, shift)
    lively = {name: value for name, value in (LIVELY | OPEN).items() if name in defined}
    chosen = {
        name: caller[name]
        for name, value in defined.items()
        if caller.get(name) and name not in _ADDRESSES and moved[name] == value
    }
    passed = {name: caller[name] for name, beside in PASSED_ON.items() if caller.get(name) and beside in defined}
    fixed = {name: value for name, value in FIXED.items() if name in defined}
    found = {name: value for name, value in backends.items() if name in secret or name in _ADDRESSES & set(defined)}
    kept = {name: value for name, value in moved.items() if name not in _ADDRESSES}
    if "REDIS_HOST" in defined and "REDIS_URL" in backends:
        found["REDIS_URL"] = backends["REDIS_URL"]
    return machine(caller) | kept | lively | chosen | passed | fixed | found


def machine(caller: Mapping[str, str]) -> dict[str, str]:
    """What a container's image would give it: this interpreter first on the path, and little else."""
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join([here, caller.get("PATH", os.defpath)])
    return {name: caller[name] for name in _OF_THE_MACHINE if name in caller} | _IMAGE | {"PATH": path}
