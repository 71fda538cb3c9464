"""The texts of the Lua scripts, read once from `scripts/`."""

from pathlib import Path

_FOLDER = Path(__file__).parents[1] / "scripts"


def script(*parts: str) -> str:
    """One script made of files of `scripts/`, named without `.lua`: what a script begins with comes first."""
    return "".join((_FOLDER / f"{part}.lua").read_text() for part in parts)
