"""Whether a lease is wanted: to ask is to campaign, to fall silent is to give up. No I/O, and no clock of its own."""

from math import inf


class Demand:
    """Who asks for one lease.

    Args:
        lasts: for how long somebody that asked counts as there, in seconds.
        always: the lease is wanted though nobody asks.
    """

    def __init__(self, lasts: float, *, always: bool) -> None:
        self.always = always
        self.until = -inf
        """Until when those count whose requests were answered."""
        self.holds = 0
        """Requests held back: who waits for an answer asks all the while."""
        self._lasts = lasts
        self._withdrawals = 0

    def asked(self, now: float) -> None:
        """Somebody asked."""
        self.until = max(self.until, now + self._lasts)

    def hold(self) -> int:
        """A request is held back; returns the ticket for `unhold`."""
        self.holds += 1
        return self._withdrawals

    def unhold(self, ticket: int, now: float, *, answered: bool) -> None:
        """The held request has ended: `answered`, or its client is gone. One from before `withdraw` counts no more."""
        if ticket == self._withdrawals:
            self.holds -= 1
            if answered:
                self.asked(now)

    def withdraw(self) -> None:
        """It is wanted no longer, whatever was asked before, until somebody asks anew."""
        self.until, self.holds = -inf, 0
        self._withdrawals += 1

    def fall_silent(self) -> None:
        """Nobody asks but who has a request held back."""
        self.until = -inf

    @property
    def stands(self) -> bool:
        """Whether it does not end by time alone."""
        return self.always or self.holds > 0

    def there(self, now: float) -> bool:
        """Whether the lease is wanted at this instant."""
        return self.stands or now < self.until
