"""Pauses between attempts of an operation that may fail again."""

import random
from collections.abc import Callable


class Backoff:
    """Pauses that double with each attempt.

    Each pause is multiplied by a random factor, which spreads the attempts of processes that failed at the same time.

    Args:
        first: seconds of the first pause, before the factor.
        longest: seconds of the longest pause, before the factor.
        least: the smallest factor.
        most: the largest factor.
        uniform: draws a number between two bounds, like `random.uniform`.
    """

    def __init__(
        self,
        first: float,
        longest: float,
        *,
        least: float = 0.5,
        most: float = 1.0,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._first = min(first, longest)
        self._longest = longest
        self._factors = least, most
        self._uniform = uniform
        self._pause = self._first

    def next(self) -> float:
        """Seconds to the next attempt."""
        pause, self._pause = self._pause, min(2 * self._pause, self._longest)
        return pause * self._uniform(*self._factors)

    def reset(self) -> None:
        """Start again with the first pause."""
        self._pause = self._first
