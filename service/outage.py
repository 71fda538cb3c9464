"""Outages: the beginning and the end of a lasting fault are logged; the failures in between appear only at DEBUG."""

import logging
import time
from collections.abc import Callable, Mapping


class Outage:
    """A fault of a component that may last.

    Args:
        logger: the component's logger.
        began: text of the line about a failure; `%s` stands for the reason.
        ended: text of the line about the end of the outage.
        level: level of the line about the first failure. Later failures are logged at DEBUG, the end at INFO.
        clock: monotonic seconds.
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
        """Record a failure; `fields` are fields of the log line."""
        first = self._since is None
        if first:
            self._since, self._failures = self._clock(), 0
        self._failures += 1
        self._logger.log(self._level if first else logging.DEBUG, self._began, reason, extra=fields)

    def recovered(self, fields: Mapping[str, object] | None = None) -> None:
        """Record a success. The log line about the end also has the fields `seconds` and `failures`."""
        if self._since is None:
            return
        seconds, self._since = self._clock() - self._since, None
        counted = {"seconds": round(seconds, 3), "failures": self._failures}
        all_fields = {**(fields or {}), **counted}
        self._logger.info("%s, after %.0f s and %d failures", self._ended, seconds, self._failures, extra=all_fields)
