"""Hosts as addresses name them: which can exist, and which are this machine."""

import re
from ipaddress import ip_address


def may_be_host(text: str) -> bool:
    """Whether that is a folder of sockets, an address, or a name that can be looked up; a port may follow."""
    if text.startswith("/"):
        return True
    name, _, port = text.partition("]" if text.startswith("[") else ":")
    try:
        possible = re.fullmatch(r"\[?[\w.:%-]+", name) and name.encode("idna")
        return bool(possible) and re.fullmatch(r":?[0-9]*", port) is not None
    except UnicodeError:
        return False


def is_local(host: str) -> bool:
    """Whether what is sent to the host stays on this machine: a folder of sockets, or a loopback address."""
    if host.startswith("/") or host.lower() == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
