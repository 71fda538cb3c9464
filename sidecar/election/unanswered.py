"""Acquires that may have executed unheard: then the key is ours without a term. No I/O, and no clock of its own."""

from math import inf


class Unheard:
    """What has to be looked at before a lease counts as given up: answers that were lost, or that did not count."""

    def __init__(self) -> None:
        self.pending = False
        """Whether some acquire may have executed, or may yet."""
        self.until = -inf
        """While `pending`: after it none executes any more, so that a look tells whose the key is."""

    def may_execute(self, *, until: float) -> None:
        """An acquire may execute until then."""
        self.pending, self.until = True, max(self.until, until)

    def answered(self, sent_at: float) -> None:
        """A call that was sent then was answered: after all of those, it tells whose the key is."""
        if sent_at >= self.until:
            self.pending, self.until = False, -inf
