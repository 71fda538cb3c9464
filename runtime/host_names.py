"""Check of a host name before anything tries to reach the host."""

import re


def may_be_host(name: str) -> bool:
    """Whether the text is an address, or a name that can be looked up. Libraries raise odd errors for other texts."""
    try:
        return re.fullmatch(r"[\w.:%-]+", name) is not None and bool(name.encode("idna"))
    except UnicodeError:  # a label is empty or too long
        return False
