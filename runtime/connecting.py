"""TCP connections to a host name: every address of the name is tried, all within one limit."""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

from aiohappyeyeballs import start_connection

from runtime.lookup import Lookups

STAGGER = 0.25
"""Longest delay, in seconds, before the next address is tried while earlier attempts continue; advised by RFC 8305."""


async def connected_socket(
    lookups: Lookups, host: str, port: int, *, limit: float, last: Sequence[Any] = ()
) -> socket.socket:
    """A non-blocking socket that is connected to one of the addresses of `host`.

    Args:
        lookups: the lookups to use; a lookup may outlive this call.
        host: a name or an IP address.
        port: a port.
        limit: seconds for the lookup and all addresses together.
        last: socket addresses that failed before. They are tried after all others, in this order.

    Raises:
        TimeoutError: there was no connection within the limit.
        OSError: the name has no address, or no address accepted a connection.
    """
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + limit
    async with asyncio.timeout_at(ends_at):
        found = await lookups.addresses(host, port)
        addresses = sorted(found, key=lambda info: last.index(info[4]) + 1 if info[4] in last else 0)
        share = max(0.0, ends_at - loop.time()) / (len(addresses) + 1)
        try:
            return await start_connection(addresses, happy_eyeballs_delay=min(STAGGER, share))
        except RuntimeError as error:  # raised by uvloop for an address that it cannot use
            raise OSError(str(error)) from None
