"""The settings of `make run`, read from the environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MOST_TASKS = 9
"""Maximum of RUN_TASKS."""

PORT_STEP = 100
"""Distance between the ports of consecutive tasks."""


class UsageError(Exception):
    """The run cannot start; the text is one line for the user."""


def unwritable(path: Path, error: OSError) -> UsageError:
    """Return the UsageError for a file or folder that cannot be written.

    Args:
        path: the path in the text if the error has none, such as the error of a full disk.
        error: the error of the write.
    """
    return UsageError(f"{error.filename or path}: cannot be written: {error.strerror}; set RUN_FOLDER")


@dataclass(frozen=True)
class RunSettings:
    """The settings of one run.

    Attributes:
        tasks: RUN_TASKS, the number of tasks to run.
        port_offset: RUN_PORT_OFFSET, added to every port of the definition.
        folder: RUN_FOLDER, for logs and data.
        redis_url: REDIS_URL, a Redis to use instead of our own; can contain a password.
        database_url: DATABASE_URL, a Postgres to use instead of our own; can contain a password.
    """

    tasks: int
    port_offset: int
    folder: Path
    redis_url: str | None
    database_url: str | None

    @classmethod
    def read(cls, environment: Mapping[str, str], root: Path) -> "RunSettings":
        """Read the settings; a relative folder is under `root`. UsageError names the invalid variable."""
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
