"""The instance id of this sidecar: the value of the lease's key while the sidecar leads."""

import logging
import secrets
import socket

import aiohttp

from runtime.lookup import Lookups
from sidecar.ecs_metadata import get_json
from sidecar.settings import checked_instance_id

log = logging.getLogger(__name__)

_LIMIT = 2.0
"""Limit of the metadata request, in seconds."""


async def instance_id(given: str | None, metadata_uri: str | None, lookups: Lookups) -> str:
    """The instance id: `given`, else the id of the ECS task from its metadata at `metadata_uri`, else a generated one.

    `aws ecs list-tasks` shows the id of the task, and a sidecar that restarts within its task keeps the id. ECS
    throttles the metadata endpoint, so the sidecar reads it only once.
    """
    if given is not None:
        return given
    if metadata_uri is None:
        log.info("Not in an ECS task (no ECS_CONTAINER_METADATA_URI_V4): the instance id is generated")
        return _generated()
    try:
        task = await get_json(f"{metadata_uri}/task", lookups, limit=_LIMIT)
        return checked_instance_id(task["TaskARN"].rpartition("/")[2])
    except (aiohttp.ClientError, TimeoutError, ValueError, TypeError, KeyError, AttributeError) as error:
        generated = _generated()
        log.warning("ECS task metadata cannot be read (%s: %s); a restarted sidecar will have another instance id",
                    type(error).__name__, error, extra={"instance": generated})  # fmt: skip
        return generated


def _generated() -> str:
    return f"{socket.gethostname()[:64]}-{secrets.token_hex(4)}"
