"""A fault that lasts is reported once when it begins and once when it is over, however often it is met between."""

import logging
import time
from collections.abc import Callable, Mapping


class Outage:
    """One fault of one component.

    Args:
        logger: the component's own.
        began: what to log when the fault is met first; `%s` stands for the reason.
        ended: what to log when it is over.
        level: of the first line; the last one is INFO.
        clock: seconds that never step.
    """

    def __init__(
        self,
        logger: logging.Logger,
        began: str,
        ended: str,
        *,
        level: int = logging.WARNING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._began = began
        self._ended = ended
        self._level = level
        self._clock = clock
        self._since: float | None = None
        self._failures = 0

    def failed(self, reason: object, fields: Mapping[str, object] | None = None) -> None:
        """Record that the fault was met; `about` are fields of the line of log."""
        first = self._since is None
        if first:
            self._since, self._failures = self._clock(), 0
        self._failures += 1
        self._logger.log(self._level if first else logging.DEBUG, self._began, reason, extra=fields)

    def recovered(self, fields: Mapping[str, object] | None = None) -> None:
        """Record that what had failed has succeeded."""
        if self._since is None:
            return
        seconds, self._since = self._clock() - self._since, None
        self._logger.info("%s, after %.0f s and %d failures", self._ended, seconds, self._failures, extra=fields)

    @property
    def is_ongoing(self) -> bool:
        """Whether the fault was met and is not over."""
        return self._since is not None
