"""Warnings that external callers can cause. Each kind is logged at most once per hour."""

import logging
import time
from collections.abc import Callable

INTERVAL = 3600.0
"""Minimum time between two warnings of a kind, in seconds."""


class HourlyWarnings:
    """Logs each kind of warning at most once per `INTERVAL`.

    Args:
        logger: the logger to write to.
        clock: monotonic seconds.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._logged_at: dict[str, float] = {}

    def warn(self, kind: str, *arguments: object) -> None:
        """Log `kind`, a constant format string for the arguments, unless it was logged within the last hour."""
        now = self._clock()
        if (logged_at := self._logged_at.get(kind)) is None or now - logged_at >= INTERVAL:
            self._logged_at[kind] = now
            self._logger.warning(kind, *arguments)
