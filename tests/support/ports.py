"""Ports that a test chose itself, so that whatever it starts can be moved to them all at once."""

import socket
from collections.abc import Iterable


def claim(ports: Iterable[int]) -> bool:
    """Whether all of these ports of 127.0.0.1 were nobody's; then no other test claims them while this process lives.

    Servers of ours may listen on them, as they set SO_REUSEADDR: each port is bound, and not listened on.
    """
    claimed: list[socket.socket] = []
    for port in ports:
        holder = socket.socket()
        claimed.append(holder)
        try:
            holder.bind(("127.0.0.1", port))  # which another holder forbids, though it lets servers in
        except OSError:
            for each in claimed:
                each.close()
            return False
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for each in claimed:
        each.detach()  # stays bound for as long as the process lives
    return True
