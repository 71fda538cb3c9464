"""A proxy like ElastiCache Serverless: one TLS endpoint in front of several servers that act as one store.

Commands on keys go to the server that has the keys. INFO and SUBSCRIBE go to the server to which the connection is
assigned, so two connections can see two run ids. WAIT and CLIENT do not exist, and all slots are at the endpoint.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from ssl import SSLContext
from typing import Self

REFUSED = (b"CLIENT", b"WAIT")
"""Commands that the endpoint does not support."""
_OF_THE_CONNECTION = (b"INFO", b"SUBSCRIBE")
"""Commands that go to the server to which the connection is assigned."""


class Serverless:
    """The proxy, an async context manager that listens on `port`.

    Args:
        servers: the ports of the servers, to which the connections are assigned in turn.
        tls: the TLS context of the endpoint.
    """

    def __init__(self, servers: Sequence[int], tls: SSLContext) -> None:
        self.owner = servers[0]
        """The port of the server that has the keys; it may change while connections are open."""
        self.servers = servers
        self.clock_ahead = 0
        """Seconds by which TIME is ahead of the servers' clock."""
        self.port = 0
        self.given: list[int] = []
        """The server of each connection so far."""
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.refuse()

    async def refuse(self) -> None:
        """End every connection and take no new ones."""
        assert self._server is not None
        self._server.close()
        await self.cut()

    async def cut(self) -> None:
        """End every connection."""
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        given = self.servers[len(self.given) % len(self.servers)]
        self.given.append(given)
        client = _Client(self, given, reader, writer)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await client.serve()
        finally:
            client.close()
            self._connections.discard(task)


class _Client:
    """A client's connection, and the proxy's connections to the servers for this client."""

    def __init__(
        self, proxy: Serverless, given: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._given = given
        self._reader, self._writer = reader, writer
        self._behind: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def serve(self) -> None:
        """Answer commands in order; after a SUBSCRIBE, pass on everything that the server sends."""
        while True:
            words, command = await _command(self._reader)
            name = words[0].upper()
            if name in REFUSED:
                self._writer.write(b"-ERR unknown command '%s', with args beginning with: \r\n" % words[0])
            elif name == b"CLUSTER":
                self._writer.write(_slots(self._proxy.port))
            elif name == b"TIME":
                self._writer.write(_time(self._proxy.clock_ahead))
            elif name == b"SUBSCRIBE":
                await self._subscribed(command)
                return
            else:
                server = self._given if name in _OF_THE_CONNECTION else self._proxy.owner
                self._writer.write(await self._answer(server, command))
            await self._writer.drain()

    def close(self) -> None:
        """End all connections."""
        for writer in (self._writer, *(writer for _, writer in self._behind.values())):
            writer.transport.abort()

    async def _answer(self, server: int, command: bytes) -> bytes:
        reader, writer = await self._connection(server)
        writer.write(command)
        return await _reply(reader)

    async def _subscribed(self, command: bytes) -> None:
        reader, writer = await self._connection(self._given)
        writer.write(command)
        pumps = [
            asyncio.ensure_future(_pump(reader, self._writer)),
            asyncio.ensure_future(_pump(self._reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _connection(self, server: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if server not in self._behind:
            self._behind[server] = await asyncio.open_connection("127.0.0.1", server)
        return self._behind[server]


async def _command(reader: asyncio.StreamReader) -> tuple[list[bytes], bytes]:
    """The words of a command, and the command as it was sent."""
    head = await reader.readuntil(b"\r\n")
    words, raw = [], head
    for _ in range(int(head[1:])):
        size = await reader.readuntil(b"\r\n")
        word = await reader.readexactly(int(size[1:]) + 2)
        words.append(word[:-2])
        raw += size + word
    return words, raw


async def _reply(reader: asyncio.StreamReader) -> bytes:
    """A reply, as it was sent."""
    head = await reader.readuntil(b"\r\n")
    count = int(head[1:]) if head[:1] in b"$*" else -1
    if head[:1] == b"*":
        return head + b"".join([await _reply(reader) for _ in range(count)])
    return head if count < 0 else head + await reader.readexactly(count + 2)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()


def _time(ahead: int) -> bytes:
    return b"*2\r\n" + _word(str(int(time.time()) + ahead)) + _word("0")


def _word(word: str) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(word), word.encode())


def _slots(port: int) -> bytes:
    node = b"*3\r\n" + _word("127.0.0.1") + b":%d\r\n" % port + _word("0" * 40)
    return b"*1\r\n*3\r\n:0\r\n:16383\r\n" + node
