"""Who this sidecar is: the value of the key while it leads."""

import asyncio
import json
import logging
import secrets
import socket

import aiohttp

from runtime.bounded_body import read_body
from runtime.http_resolver import SharedResolver
from runtime.lookup import Lookups
from sidecar.settings import checked_instance_id

log = logging.getLogger(__name__)

_LIMIT = 2.0
_LARGEST = 1 << 20
"""An answer above this, in bytes, is no task's metadata."""


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
        async with (
            asyncio.timeout(_LIMIT),
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=SharedResolver(lookups))) as session,
            session.get(f"{metadata_uri}/task") as reply,
        ):
            reply.raise_for_status()
            task = json.loads(await read_body(reply, _LARGEST))
        return checked_instance_id(task["TaskARN"].rpartition("/")[2])
    except (aiohttp.ClientError, TimeoutError, ValueError, TypeError, KeyError, AttributeError) as error:
        made_up = _made_up()
        log.warning("ECS task metadata cannot be read (%s: %s); a sidecar that is restarted will be another instance",
                    type(error).__name__, error, extra={"instance": made_up})  # fmt: skip
        return made_up


def _made_up() -> str:
    return f"{socket.gethostname()[:64]}-{secrets.token_hex(4)}"
