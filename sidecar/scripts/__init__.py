"""The Lua scripts, and the loader that puts a script's text together."""

import re
from pathlib import Path

_FOLDER = Path(__file__).parent
_COMMENT_OR_INDENT = re.compile(r"^\s+|\s*--.*$", re.MULTILINE)


def script(*parts: str) -> str:
    """The text of a script: the named files of this folder, joined in order. `parts` are file names without `.lua`.

    Comments and indents are left out, because each call sends the text and Redis hashes it.
    """
    text = "".join((_FOLDER / f"{part}.lua").read_text() for part in parts)
    return _COMMENT_OR_INDENT.sub("", text)
