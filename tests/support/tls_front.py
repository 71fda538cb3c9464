"""A server that completes TLS handshakes, or refuses them with an alert as OpenSSL's servers do (asyncio's do not)."""

import socket
from contextlib import suppress
from ssl import SSLContext
from threading import Thread
from typing import Self


class TlsFront:
    """The server, a context manager; `port` is where it listens. After a handshake it closes the connection.

    Args:
        tls: the server's TLS context.
    """

    def __init__(self, tls: SSLContext) -> None:
        self._tls = tls
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        self._thread = Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        self._thread.join(10)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._door.accept()
                Thread(target=self._shake_hands, args=(client,), daemon=True).start()

    def _shake_hands(self, client: socket.socket) -> None:
        with client, client.dup() as raw, suppress(OSError):
            client.settimeout(20)
            raw.settimeout(20)
            with suppress(OSError):
                self._tls.wrap_socket(client, server_side=True).close()
            raw.shutdown(socket.SHUT_WR)  # a socket that is closed with unread bytes would reset the connection
            while raw.recv(4096):
                pass
