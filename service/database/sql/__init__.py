"""The statements, one in each file. Each file begins with its parameters."""

from functools import cache
from importlib.resources import files


@cache
def statement(name: str) -> str:
    """The text of `NAME.sql`."""
    return files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
