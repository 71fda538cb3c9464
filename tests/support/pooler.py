"""A small connection pooler in front of a real Postgres, like PgBouncer, in transaction mode or session mode.

In transaction mode a client has one of the server's sessions only during a transaction. The pooler uses the session
that was released last, so a single client always gets the same session.
"""

import asyncio
import struct
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Literal, Self

SSL_REQUEST, CANCEL_REQUEST = 80877103, 80877102
IDLE = b"I"


async def _read(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """A message's type, and its bytes including the type."""
    kind = await reader.readexactly(1)
    length = await reader.readexactly(4)
    return kind, kind + length + await reader.readexactly(struct.unpack("!I", length)[0] - 4)


@dataclass(eq=False)
class ServerSession:
    """A session of the server, and the client that uses it now."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    client: asyncio.StreamWriter | None = None
    unanswered: int = 0


class Pooler:
    """The pooler, an async context manager; `port` is where it listens."""

    def __init__(self, target: int, user: str, database: str, mode: Literal["transaction", "session"]) -> None:
        self.target = target
        self.mode = mode
        self.port = 0
        self._startup = b"user\0" + user.encode() + b"\0database\0" + database.encode() + b"\0\0"
        self._greeting = b""
        self._idle: list[ServerSession] = []
        self._all: list[ServerSession] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for session in self._all:
            session.writer.close()

    async def _session(self) -> ServerSession:
        if self._idle:
            return self._idle.pop()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.target)
        body = struct.pack("!I", 196608) + self._startup
        writer.write(struct.pack("!I", len(body) + 4) + body)
        greeting = b""
        while True:
            kind, message = await _read(reader)
            assert kind != b"E", message
            greeting += message
            if kind == b"Z":
                break
        self._greeting = greeting
        session = ServerSession(reader, writer)
        self._all.append(session)
        self._start(self._answer(session))
        return session

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, session: ServerSession) -> None:
        """Send the server's messages to the client that has the session, and drop messages between transactions."""
        try:
            while True:
                kind, message = await _read(session.reader)
                if session.client is not None:
                    session.client.write(message)
                if kind == b"Z":
                    session.unanswered -= 1
                    if self.mode == "transaction" and message[5:] == IDLE and session.unanswered == 0:
                        session.client = None
                        self._idle.append(session)
        except (asyncio.IncompleteReadError, ConnectionError):
            if session in self._idle:
                self._idle.remove(session)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        session: ServerSession | None = None
        try:
            while True:
                (length, code) = struct.unpack("!II", await reader.readexactly(8))
                await reader.readexactly(length - 8)
                if code == CANCEL_REQUEST:
                    return
                if code != SSL_REQUEST:
                    break
                writer.write(b"N")
            if not self._greeting:
                self._idle.append(await self._session())
            writer.write(self._greeting)
            while True:
                kind, message = await _read(reader)
                if kind == b"X":
                    return
                if session is None or session.client is not writer:
                    session = await self._session()
                    session.client = writer
                session.unanswered += kind in (b"Q", b"S", b"F")
                session.writer.write(message)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            if session is not None and session.client is writer:
                session.client = None
                session.writer.close()
            writer.close()
            self._tasks.discard(task)
