"""Addresses of listeners. The module is small because the health check imports it and must start quickly."""

import reprlib
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Self

DEFAULT = "0.0.0.0:8080"
"""Default address of the public listener."""
INTERNAL_DEFAULT = "0.0.0.0:9101"
"""Default address of the internal listener."""


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address and a TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `HOST:PORT`, IPv6 as `[::1]:8080`.

        Raises:
            ValueError: the text does not have that form; the message says what is wrong.
        """
        host, colon, port = text.rpartition(":")
        if not colon:
            raise ValueError(f"{reprlib.repr(text)} is not ADDRESS:PORT")
        host = host.removeprefix("[").removesuffix("]")
        try:
            ip_address(host)
        except ValueError:
            raise ValueError(f"{reprlib.repr(host)} is not an IP address") from None
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
            raise ValueError(f"{reprlib.repr(port)} is not a port")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def overlaps(self, other: "Address") -> bool:
        """Whether listeners at both addresses would accept the same connections."""
        any_host = ip_address(self.host).is_unspecified or ip_address(other.host).is_unspecified
        return self.port == other.port and (any_host or self.host == other.host)

    @property
    def reachable(self) -> str:
        """The host to connect to from this machine: the loopback address if the listener accepts on all addresses."""
        address = ip_address(self.host)
        if not address.is_unspecified:
            return self.host
        return "127.0.0.1" if address.version == 4 else "::1"
