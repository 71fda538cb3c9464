"""The statements, one a file; each begins with what its parameters are."""

from functools import cache
from importlib.resources import files


@cache
def statement(name: str) -> str:
    """The text of `NAME.sql`."""
    return files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
