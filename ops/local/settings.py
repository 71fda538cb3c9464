"""What a caller can set for `make run`, from the environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MOST_TASKS = 9
PORT_STEP = 100
"""How far the ports of one task lie from the next one's."""


class UsageError(Exception):
    """The run cannot start as asked; the text is one line for the user."""


@dataclass(frozen=True)
class RunSettings:
    """The settings of one run.

    Attributes:
        tasks: RUN_TASKS, how many tasks to run.
        port_offset: RUN_PORT_OFFSET, added to every port of the definition.
        folder: RUN_FOLDER, for logs and data.
        redis_url: REDIS_URL, a Redis to use instead of starting one; may hold a password.
        database_url: DATABASE_URL, a Postgres to use instead of starting one; may hold a password.
    """

    tasks: int
    port_offset: int
    folder: Path
    redis_url: str | None
    database_url: str | None

    @classmethod
    def read(cls, environment: Mapping[str, str], root: Path) -> "RunSettings":
        """Read them; relative folders lie under `root`. UsageError names the variable that is wrong."""
        return cls(
            tasks=_integer(environment, "RUN_TASKS", 2, 1, MOST_TASKS),
            port_offset=_integer(environment, "RUN_PORT_OFFSET", 0, -1000, 50000),
            folder=root / (environment.get("RUN_FOLDER") or ".run"),
            redis_url=environment.get("REDIS_URL") or None,
            database_url=environment.get("DATABASE_URL") or None,
        )


def _integer(environment: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = environment.get(name, "").strip()
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise UsageError(f"{name}={text!r} is not a whole number from {low} to {high}")
    return value
