"""Checks of the hosts in addresses."""

import re

from runtime import addresses
from runtime.host_names import may_be_host


def may_be_server(text: str) -> bool:
    """Whether the text can name a server: a folder of Unix sockets, or an address or name, with or without a port."""
    if text.startswith("/"):
        return True
    host, _, port = text.partition("]" if text.startswith("[") else ":")
    return may_be_host(host.removeprefix("[")) and re.fullmatch(r":?[0-9]*", port) is not None


def is_local(host: str) -> bool:
    """Whether connections to the host stay on this machine: a folder of Unix sockets, or a loopback address."""
    return host.startswith("/") or host.lower() == "localhost" or addresses.is_loopback(host)
