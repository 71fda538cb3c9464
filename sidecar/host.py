"""What may name a machine: checked before anything tries to reach it."""

import re


def may_be_host(name: str) -> bool:
    """Whether that is an address, or a name that can be looked up: an impossible one raises deep in the libraries."""
    try:
        return re.fullmatch(r"[\w.:%-]+", name) is not None and bool(name.encode("idna"))
    except UnicodeError:  # a label is empty or too long
        return False
