"""The Lua scripts, and the loader that puts a script's text together."""

from pathlib import Path

_FOLDER = Path(__file__).parent


def script(*parts: str) -> str:
    """The text of a script: the files of this folder that are named, without `.lua`, in the order in which they run."""
    return "".join((_FOLDER / f"{part}.lua").read_text() for part in parts)
