"""IP addresses: where a listener accepts connections, and which addresses are this machine's loopback.

The health checks import this module, so it may import only modules that load quickly.
"""

import ipaddress
import reprlib
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Address:
    """A numeric IP address, without brackets, and a TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `HOST:PORT`, with brackets around an IPv6 address: `[::1]:8080`.

        Raises:
            ValueError: the text does not have that form; the message says what is wrong.
        """
        host, colon, port = text.rpartition(":")
        if not colon:
            raise ValueError(f"{reprlib.repr(text)} is not ADDRESS:PORT")
        host = host.removeprefix("[").removesuffix("]")
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise ValueError(f"{reprlib.repr(host)} is not an IP address") from None
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
            raise ValueError(f"{reprlib.repr(port)} is not a port")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"{in_url(self.host)}:{self.port}"

    def overlaps(self, other: "Address") -> bool:
        """Whether listeners at both addresses would accept the same connections."""
        any_host = ipaddress.ip_address(self.host).is_unspecified or ipaddress.ip_address(other.host).is_unspecified
        return self.port == other.port and (any_host or self.host == other.host)

    @property
    def reachable(self) -> str:
        """The host to connect to from this machine: the loopback address if the listener accepts on all addresses."""
        address = ipaddress.ip_address(self.host)
        if not address.is_unspecified:
            return self.host
        return "127.0.0.1" if address.version == 4 else "::1"


def in_url(host: str) -> str:
    """The host as part of a URL: an IPv6 address gets brackets."""
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Whether a host is a numeric loopback address. An IPv4-mapped IPv6 address counts as its IPv4 address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
