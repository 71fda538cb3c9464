"""A TCP proxy on 127.0.0.1 that causes faults between a client and a server.

Faults of requests and of replies are separate:

    proxy.requests.hold()     # the request is executed late, when `flow` is called
    proxy.replies.lose()      # the request is executed, but the client gets no reply
    proxy.replies.delay = 0.2

`cut` ends every connection, `refuse` and `accept` close and open the listener, and `target` is the port of the server.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from ssl import SSLContext
from typing import Self


class Direction:
    """Faults of one direction, for all connections, including those that are already open."""

    def __init__(self) -> None:
        self.delay = 0.0
        """Delay of each piece, in seconds."""
        self.translate: Callable[[bytes], bytes] | None = None
        """A function that changes each piece. With such a function, each piece consists of whole lines."""
        self._lost = False
        self.held = False
        """Whether data has been held back."""
        self._open = asyncio.Event()
        self._open.set()

    def flow(self) -> None:
        """Pass everything on from now on, including what was held."""
        self.delay, self._lost = 0.0, False
        self._open.set()

    def hold(self) -> None:
        """Keep all bytes until `flow` is called."""
        self._open.clear()

    def lose(self) -> None:
        """Discard all bytes. The stream is then incomplete, so the test must cut the connection in the end."""
        self._lost = True

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Copy bytes until one side ends."""
        while piece := await reader.read(65536):
            if self.translate is not None:
                while not piece.endswith(b"\r\n") and (more := await reader.read(65536)):
                    piece += more
                piece = self.translate(piece)
            if self.delay:
                await asyncio.sleep(self.delay)
            self.held = self.held or not self._open.is_set()
            await self._open.wait()
            if not self._lost:
                writer.write(piece)
                await writer.drain()


class Proxy:
    """The proxy, an async context manager that listens on `port`. With `tls`, clients must use TLS."""

    def __init__(self, target: int, tls: SSLContext | None = None) -> None:
        self.target = target
        self.tls = tls
        self.requests = Direction()
        self.replies = Direction()
        self.port = 0
        self.accepted = 0
        """The number of connections so far."""
        self.turn_away = 0
        """The number of further connections to close immediately."""
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.refuse()

    @property
    def listens(self) -> bool:
        """Whether connections are accepted."""
        return self._server is not None and self._server.is_serving()

    async def accept(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Cut every connection and refuse new ones."""
        if self._server is not None:
            self._server.close()
        await self.cut()

    async def cut(self) -> None:
        """End every connection on both sides."""
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def black_hole(self) -> None:
        """Accept connections and pass nothing on until `flow` is called."""
        self.requests.hold()
        self.replies.hold()

    def flow(self) -> None:
        """Pass everything on from now on, including what was held."""
        self.requests.flow()
        self.replies.flow()

    async def _connected(self, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.turn_away:
            self.turn_away -= 1
            client_writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        with suppress(OSError, asyncio.CancelledError):
            try:
                server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target)
            except OSError:
                client_writer.transport.abort()
                raise
            try:
                pumps = [
                    asyncio.ensure_future(self.requests.pump(client_reader, server_writer)),
                    asyncio.ensure_future(self.replies.pump(server_reader, client_writer)),
                ]
                try:
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.gather(*pumps, return_exceptions=True)
            finally:
                client_writer.transport.abort()
                server_writer.transport.abort()
        self._connections.discard(task)
