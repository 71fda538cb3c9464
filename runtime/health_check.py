"""The request of a container's health check.

ECS starts a new process for each check. A bare socket keeps the start short: importing an HTTP client would take longer
than the request.
"""

import socket


def status_line(host: str, port: int, limit: float) -> str:
    """The status line of the answer to `GET /healthz`.

    Args:
        host: a numeric address.
        port: a TCP port.
        limit: seconds for the connection, and for each part of the answer.

    Raises:
        OSError: nothing answers in time.
    """
    with socket.create_connection((host, port), timeout=limit) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        with connection.makefile("rb") as answer:
            return answer.readline(1024).decode("latin-1").strip()


def is_healthy(status: str) -> bool:
    """Whether the text is an HTTP status line with the status 200. Another program on the port may send any text."""
    return status.split()[:2] in (["HTTP/1.0", "200"], ["HTTP/1.1", "200"])
