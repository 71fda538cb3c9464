"""The way of one task to the servers of a cluster or of a group with sentinels: a proxy for each server.

The servers name each other in their replies (CLUSTER SLOTS, MOVED, SENTINEL MASTER). The way replaces the port of each
server with the port of its proxy, so the task reaches every server through its own proxies.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Iterable
from typing import Self

from tests.chaos.ports import quiet_port
from tests.support.proxy import Direction, Proxy


class Way:
    """The proxies of one task, an async context manager; a fault of one direction affects all of them.

    Args:
        ports: the ports of the servers, each with five digits, so that a reply keeps its length.
    """

    def __init__(self, ports: Iterable[int]) -> None:
        self.proxies = {port: Proxy(port) for port in ports}
        self.requests, self.replies = Direction(), Direction()
        self._refusals = Counter(iter(self.proxies))  # the number of faults that close each proxy; 1 before the start
        for proxy in self.proxies.values():
            proxy.port = quiet_port()
            proxy.requests, proxy.replies = self.requests, self.replies
        behind = {str(port).encode(): str(proxy.port).encode() for port, proxy in self.proxies.items()}
        named = re.compile(rb"(?<=[:\n])(?:%s)(?=\r\n)" % b"|".join(behind))
        self.replies.translate = lambda piece: named.sub(lambda found: behind[found.group()], piece)

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.refuse()

    def port_of(self, server: int) -> int:
        """Return the port at which the task finds a server."""
        return self.proxies[server].port

    def black_hole(self) -> None:
        """Accept connections and forward nothing until `flow` is called."""
        self.requests.hold()
        self.replies.hold()

    def flow(self) -> None:
        """Forward everything from now on, including the held bytes."""
        self.requests.flow()
        self.replies.flow()

    async def cut(self) -> None:
        """End every connection on both sides."""
        await asyncio.gather(*(proxy.cut() for proxy in self.proxies.values()))

    async def refuse(self, servers: Iterable[int] | None = None) -> None:
        """Cut every connection to these servers (None: to all servers), and refuse new connections."""
        chosen = list(servers or self.proxies)
        self._refusals.update(chosen)
        await asyncio.gather(*(self.proxies[port].refuse() for port in chosen))

    async def accept(self, servers: Iterable[int] | None = None) -> None:
        """End one refusal of each server; a proxy without a refusal listens again, on the same port."""
        chosen = list(servers or self.proxies)
        self._refusals.subtract(chosen)
        await asyncio.gather(*(self.proxies[port].accept() for port in chosen if not self._refusals[port]))
