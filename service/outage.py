"""Outages: a lasting fault is logged once when it begins and once when it ends, however often it is met between."""

import logging
import time
from collections.abc import Callable, Mapping


class Outage:
    """A fault of a component that may last.

    Args:
        logger: the component's logger.
        began: the message for the first failure; `%s` stands for the reason.
        ended: the message for the first success after a failure.
        level: the level of the first message; the last message is INFO.
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
        self._met = 0

    def met(self, reason: object, about: Mapping[str, object] | None = None) -> None:
        """Record a failure. `about` has fields for the log line."""
        first = self._since is None
        if first:
            self._since, self._met = self._clock(), 0
        self._met += 1
        self._logger.log(self._level if first else logging.DEBUG, self._began, reason, extra=about)

    def over(self, about: Mapping[str, object] | None = None) -> None:
        """Record a success."""
        if self._since is None:
            return
        seconds, self._since = self._clock() - self._since, None
        self._logger.info("%s, after %.0f s and %d failures", self._ended, seconds, self._met, extra=about)

    @property
    def lasts(self) -> bool:
        """Whether the last attempt failed."""
        return self._since is not None
