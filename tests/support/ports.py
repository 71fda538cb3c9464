"""Ports that a test itself chooses, for example because the distances between the ports of its servers are fixed."""

import socket
from collections.abc import Iterable


def claim(ports: Iterable[int]) -> bool:
    """Reserve the ports of 127.0.0.1 for this process; returns False if one of them is in use.

    Each port stays bound without a listener. The project's servers can still listen on it, since they set SO_REUSEADDR.
    """
    claimed: list[socket.socket] = []
    for port in ports:
        holder = socket.socket()
        claimed.append(holder)
        try:
            holder.bind(("127.0.0.1", port))  # fails if another test has reserved the port
        except OSError:
            for each in claimed:
                each.close()
            return False
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for each in claimed:
        each.detach()  # stays bound until the process ends
    return True
