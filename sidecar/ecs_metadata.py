"""A request to an endpoint that ECS serves to its task.

The time and the size of the answer, a JSON object, are limited.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import aiohttp

from runtime.bounded_body import read_body
from runtime.http_resolver import SharedResolver
from runtime.lookup import Lookups

_LARGEST = 1 << 20
"""Limit of an answer, in bytes."""


async def get_json(url: str, lookups: Lookups, *, limit: float, headers: Mapping[str, str] | None = None) -> Any:
    """The JSON in the answer to a GET. Redirects are not followed.

    Args:
        url: the URL of the endpoint.
        lookups: the name lookups to use.
        limit: seconds for the whole request.
        headers: headers of the request.

    Raises:
        aiohttp.ClientError: the endpoint cannot be reached, or answers with an error.
        TimeoutError: the endpoint does not answer within the limit.
        ValueError: the answer is longer than 1 MiB, is not JSON, or is nested too deeply.
    """
    async with (
        asyncio.timeout(limit),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=SharedResolver(lookups))) as session,
        session.get(url, headers=headers, allow_redirects=False) as reply,
    ):
        reply.raise_for_status()
        body = await read_body(reply, _LARGEST)
    try:
        return json.loads(body)
    except RecursionError:  # from thousands of brackets
        raise ValueError("the answer is nested too deeply") from None
