"""A resolver for aiohttp that uses `runtime.lookup`.

aiohttp's own resolver uses the loop's thread pool, and the end of the process waits for the pool's threads.
"""

import socket

from aiohttp.abc import AbstractResolver, ResolveResult

from runtime.lookup import Lookups


class SharedResolver(AbstractResolver):
    """A resolver for `aiohttp.TCPConnector(resolver=...)`. aiohttp tries every address, and keeps the name for TLS."""

    def __init__(self, lookups: Lookups) -> None:
        self._lookups = lookups

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a host.

        Raises:
            OSError: the host has no address of the family.
        """
        found = [
            ResolveResult(hostname=host, host=_host_of(address), port=address[1], family=each, proto=protocol,
                          flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)
            for each, _, protocol, _, address in await self._lookups.addresses(host, port)
            if family in (socket.AF_UNSPEC, each)
        ]  # fmt: skip
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, f"{host} has no address of the requested family")
        return found

    async def close(self) -> None:
        """Do nothing: lookups under way end by themselves."""


def _host_of(address: tuple[str | int, ...]) -> str:
    """The host of a socket address; a link-local IPv6 address includes the name of its interface."""
    host, scope = str(address[0]), address[3] if len(address) == 4 else 0
    return f"{host}%{socket.if_indextoname(int(scope))}" if scope and "%" not in host else host
