"""The wrapper's pauses before it campaigns again after COMMAND has ended by itself."""

FIRST, LONGEST = 1.0, 30.0
"""The first pause and the longest pause, in seconds."""
STEADY = 60.0
"""Seconds of work after which the pauses start again with the first one."""


class Pauses:
    """Pauses that double each time COMMAND ends soon after its start."""

    def __init__(self) -> None:
        self._next = FIRST

    def after(self, worked: float) -> float:
        """Return the pause, in seconds, after COMMAND has worked for `worked` seconds."""
        if worked >= STEADY:
            self._next = FIRST
        pause, self._next = self._next, min(2 * self._next, LONGEST)
        return pause
