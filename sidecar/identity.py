"""Who this sidecar is: the value of the key while it leads."""

import logging
import secrets
import socket

import aiohttp

from runtime.lookup import Lookups
from sidecar.ecs_metadata import get_json
from sidecar.settings import checked_instance_id

log = logging.getLogger(__name__)

_LIMIT = 2.0


async def instance_id(given: str | None, metadata_uri: str | None, lookups: Lookups) -> str:
    """`given`; else the ECS task's id, from its metadata at `metadata_uri`; else the host's name and a random part.

    The task's id is what `aws ecs list-tasks` shows, and a sidecar that is restarted within its task keeps it. The
    metadata endpoint is throttled: it is read once.
    """
    if given is not None:
        return given
    if metadata_uri is None:
        log.info("Not in an ECS task (no ECS_CONTAINER_METADATA_URI_V4): the instance id is made up")
        return _made_up()
    try:
        task = await get_json(f"{metadata_uri}/task", lookups, limit=_LIMIT)
        return checked_instance_id(task["TaskARN"].rpartition("/")[2])
    except (aiohttp.ClientError, TimeoutError, ValueError, TypeError, KeyError, AttributeError) as error:
        made_up = _made_up()
        log.warning("ECS task metadata cannot be read (%s: %s); a sidecar that is restarted will be another instance",
                    type(error).__name__, error, extra={"instance": made_up})  # fmt: skip
        return made_up


def _made_up() -> str:
    return f"{socket.gethostname()[:64]}-{secrets.token_hex(4)}"
