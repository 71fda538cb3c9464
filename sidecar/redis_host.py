"""The check of a host in REDIS_HOST, REDIS_URL or REDIS_SENTINELS. The error for REDIS_HOST also names a remedy."""

import re
import socket

from runtime.host_names import may_be_host


def checked_host(text: str) -> str:
    """The text, if it can be the name or the address of one machine.

    Raises:
        ValueError: the text cannot be a host. The error repeats no part of the text, which may contain a password.
    """
    if wrong := _fault(text):
        raise ValueError(wrong[0])
    return text


def checked_redis_host(text: str) -> str:
    """`checked_host` for REDIS_HOST: the error also names the remedy."""
    if wrong := _fault(text):
        raise ValueError("; ".join(filter(None, wrong)))
    return text


def _fault(text: str) -> tuple[str, str] | None:
    """The reason why the text is no host, and the remedy for REDIS_HOST ('' for none); None if the text is a host."""
    if "://" in text:
        return "not the name or the address of a host", "put a URL into REDIS_URL"
    if "@" in text:
        return "contains a user", "put the user and the password into REDIS_USERNAME and REDIS_PASSWORD"
    if "," in text:
        return "contains several hosts", "put one name or one address of the primary there"
    if "/" in text:
        return "contains a path", "put a socket's path, or the number of a database, into REDIS_URL"
    if any(mark in text for mark in "'\"$<>{}"):
        return "contains quotes, or a placeholder that was not replaced", ""
    if re.fullmatch(r"\[.*\]", text):
        return "in brackets", "put the IPv6 address there without brackets"
    if re.fullmatch(r"\[.*\]:[0-9]*|[^:]*:[0-9]*", text):
        return "contains a port", "put the port into REDIS_PORT"
    if not may_be_host(text) or text.startswith(("-", ".")) or len(text) > 253:
        return "not the name or the address of a host", ""
    if ":" in text or "%" in text:
        return None if _is_address(text, socket.AF_INET6) else ("not an IPv6 address", "")
    if re.fullmatch(r"[0-9.]*", text) and not _is_address(text, socket.AF_INET):
        return "neither a name nor an IPv4 address", ""
    return None


def _is_address(text: str, family: int) -> bool:
    try:
        socket.inet_pton(family, text.partition("%")[0] if family == socket.AF_INET6 else text)
    except OSError:
        return False
    return True
