"""Pauses between attempts of an operation that may fail again."""

import random
from collections.abc import Callable


class Backoff:
    """Pauses that double with each attempt.

    Each pause is shortened at random, which spreads the attempts of processes that failed at the same time.

    Args:
        first: seconds of the first pause.
        longest: seconds of the longest pause.
        least: the smallest share of a pause that remains after shortening, from 0 to 1.
        uniform: draws a number between two bounds, like `random.uniform`.
    """

    def __init__(
        self,
        first: float,
        longest: float,
        *,
        least: float = 0.5,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._first = first
        self._longest = longest
        self._least = least
        self._uniform = uniform
        self._pause = first

    def next(self) -> float:
        """Seconds to the next attempt."""
        pause, self._pause = self._pause, min(2 * self._pause, self._longest)
        return pause * self._uniform(self._least, 1.0)

    def reset(self) -> None:
        """Start again with the first pause."""
        self._pause = self._first
