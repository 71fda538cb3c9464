"""The Lua scripts, and the loader that puts a script's text together."""

from pathlib import Path

_FOLDER = Path(__file__).parent


def script(*parts: str) -> str:
    """The text of a script: the named files of this folder, joined in order. `parts` are file names without `.lua`."""
    return "".join((_FOLDER / f"{part}.lua").read_text() for part in parts)
