"""What a command found or did: lines for people, and one JSON document for programs."""

import json
from typing import Any, NamedTuple


class Report(NamedTuple):
    """The result of a command.

    `failure` is one line if the command failed to do its work; the exit status is then 1.
    """

    lines: list[str]
    document: dict[str, Any]
    failure: str | None = None


def to_json(document: object, indent: int | None = None) -> str:
    """A JSON text of ASCII characters without a control character."""
    return json.dumps(document, indent=indent).replace("\x7f", "\\u007f")
