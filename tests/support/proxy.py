"""A TCP proxy on 127.0.0.1 with faults to order, between a client and a server that know nothing of it.

What a network does to a request on its way and to a reply on its way back are set apart:

    proxy.requests.hold()     # they are kept, and go on when `flow` is called: the request executes late
    proxy.replies.lose()      # the server executes what it is asked, and nobody hears of it
    proxy.replies.delay = 0.2

`cut` ends every connection, `refuse` and `accept` shut and open the door, `target` is where new connections go.
"""

import asyncio
from contextlib import suppress
from ssl import SSLContext
from typing import Self


class Direction:
    """What happens to the bytes that go one way, those of connections that are open already included."""

    def __init__(self) -> None:
        self.delay = 0.0
        """Seconds that each piece is late."""
        self._lost = False
        self._open = asyncio.Event()
        self._open.set()

    def flow(self) -> None:
        """Let everything pass from now on, and what was held."""
        self.delay, self._lost = 0.0, False
        self._open.set()

    def hold(self) -> None:
        """Keep what comes until `flow`."""
        self._open.clear()

    def lose(self) -> None:
        """Throw away what comes; a stream that lost something is of no use any more, so cut it in the end."""
        self._lost = True

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes until one side ends."""
        while piece := await reader.read(65536):
            if self.delay:
                await asyncio.sleep(self.delay)
            await self._open.wait()
            if not self._lost:
                writer.write(piece)
                await writer.drain()


class Proxy:
    """The proxy, an async context manager; `port` is where it listens. With `tls` clients have to speak TLS to it."""

    def __init__(self, target: int, tls: SSLContext | None = None) -> None:
        self.target = target
        self.tls = tls
        self.requests = Direction()
        self.replies = Direction()
        self.port = 0
        self.accepted = 0
        """How many connections were made so far."""
        self.turn_away = 0
        """How many of the next connections are closed before anything passes."""
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.refuse()

    async def accept(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Cut every connection and let no new one in."""
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
        """Accept everything, answer nothing, until `flow`."""
        self.requests.hold()
        self.replies.hold()

    def flow(self) -> None:
        """Let everything pass from now on, and what was held."""
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
