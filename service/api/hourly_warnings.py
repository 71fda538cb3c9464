"""Warnings that strangers can cause: each kind is logged once an hour at most."""

import logging
import time
from collections.abc import Callable

PAUSE = 3600.0
"""Seconds from one warning of a kind to the next."""


class HourlyWarnings:
    """Logs warnings.

    Args:
        logger: where they go.
        clock: seconds that only rise.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._logged_at: dict[str, float] = {}

    def warn(self, kind: str, *arguments: object) -> None:
        """Log `kind`, a constant format for the arguments, unless it was logged within the last hour."""
        now = self._clock()
        if (logged_at := self._logged_at.get(kind)) is None or now - logged_at >= PAUSE:
            self._logged_at[kind] = now
            self._logger.warning(kind, *arguments)
