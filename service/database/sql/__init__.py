"""The statements, one in each file. A file begins with its parameters, if it has any."""

from functools import cache
from importlib.resources import files


@cache
def statement(name: str) -> str:
    """The text of `NAME.sql`."""
    return files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
