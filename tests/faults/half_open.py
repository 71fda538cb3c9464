"""Two ways to make the kernel drop the packets of a sidecar silently."""

import os
import shutil
import socket
import struct
import subprocess
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import addressof, create_string_buffer

from tests.support.proxy import Proxy

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
RETURN_0 = struct.pack("HBBI", 0x06, 0, 0, 0)
"""The classic BPF program that drops every packet."""


class FilteredProxy(Proxy):
    """A proxy that can let the kernel drop every segment that arrives at the proxy's end of a connection.

    The effect is the same as with `iptables ... -j DROP` on the port of the proxy. But a filter needs no privilege, and
    leaves no rule behind: it belongs to the sockets and ends with them.
    """

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self._ends: list[socket.socket] = []

    @contextmanager
    def dropping(self) -> Iterator[None]:
        """Drop everything that arrives, SYN packets included."""
        assert self._server is not None
        filtered = [*self._ends, *self._server.sockets]
        program = create_string_buffer(RETURN_0)
        for end in filtered:
            end.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HxxxxxxP", 1, addressof(program)))
        try:
            yield
        finally:
            for end in filtered:
                if end.fileno() >= 0:
                    end.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)

    async def _connected(self, client_reader: StreamReader, client_writer: StreamWriter) -> None:
        end = client_writer.get_extra_info("socket")
        self._ends.append(end)
        try:
            await super()._connected(client_reader, client_writer)
        finally:
            self._ends.remove(end)


def iptables_lacks() -> str | None:
    """Return what is missing for rules of iptables; None if they work."""
    if os.geteuid() != 0:
        return "root"
    if (iptables := shutil.which("iptables")) is None:
        return "iptables"
    done = subprocess.run([iptables, "-w", "-n", "-L", "INPUT"], capture_output=True, check=False)
    return None if done.returncode == 0 else f"the right to use iptables ({done.stderr.decode().strip()})"


@contextmanager
def iptables_drop(port: int) -> Iterator[None]:
    """Drop the packets to this port of the loopback during the block, with one rule that is removed at the end."""
    rule = ["INPUT", "-i", "lo", "-p", "tcp", "--dport", str(port), "-j", "DROP"]
    try:
        subprocess.run(["iptables", "-w", "-I", *rule], check=True)
        yield
    finally:
        subprocess.run(["iptables", "-w", "-D", *rule], check=False)
