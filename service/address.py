"""Where the API listens. A module of its own because the health check, which has to be quick, needs nothing else."""

import reprlib
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Self

DEFAULT = "0.0.0.0:8080"
"""Address of the public listener."""
INTERNAL_DEFAULT = "0.0.0.0:9101"
"""Address of the internal listener."""


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address and a TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `HOST:PORT`, IPv6 as `[::1]:8080`.

        Raises:
            ValueError: it is not of that form; the text says what is wrong.
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
        """Whether two listeners at these addresses would take the same connections."""
        any_host = ip_address(self.host).is_unspecified or ip_address(other.host).is_unspecified
        return self.port == other.port and (any_host or self.host == other.host)

    @property
    def reachable(self) -> str:
        """The host to connect to from this machine: loopback where all addresses are listened on."""
        address = ip_address(self.host)
        if not address.is_unspecified:
            return self.host
        return "127.0.0.1" if address.version == 4 else "::1"
