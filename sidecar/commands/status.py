"""`python -m sidecar status`: what the sidecar in the same task reports about its leases."""

import json
from http.client import HTTPException
from urllib.request import ProxyHandler, build_opener

from runtime.addresses import Address
from runtime.escape import one_line
from sidecar.commands.connection import LIMIT, CommandError
from sidecar.commands.report import Report, to_json

_LARGEST = 1 << 20
"""Limit of a sidecar's status, in bytes."""


def status(control: Address) -> Report:
    """Ask the sidecar.

    Raises:
        CommandError: no sidecar answers there.
    """
    url = f"http://{control}/status"
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=LIMIT) as answer:
            body = answer.read(_LARGEST + 1)
        if len(body) > _LARGEST:
            raise ValueError(f"the answer is longer than {_LARGEST} bytes")
        document = json.loads(body)
        return Report([to_json(document, indent=2)], document)
    except (OSError, ValueError, RecursionError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        why = reason.strerror if isinstance(reason, OSError) and reason.strerror else reason
        raise CommandError(f"no sidecar answers at {url}: {one_line(why)}") from None
