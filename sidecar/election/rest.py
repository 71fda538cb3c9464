"""The time for which a candidate leaves its lease to others.

After its client's resign a candidate waits for a second, so that another task gets the lease. After an operator's
step-down it waits for one and a half heartbeats, so that every follower has called once, even without a watch. Both
waits end early when another candidate has led.
"""

from math import inf

from sidecar.protocol import YIELD_FOR, Outcome, Reply

_NOTHING_READ = (Outcome.LATE, Outcome.WRONG_TYPE, Outcome.BAD_FENCE, Outcome.FENCE_AHEAD)
"""Outcomes whose reply may lack the holder or the token."""


class Rest:
    """The rest period of one candidate for one lease.

    Args:
        after_step_down: seconds of the rest after a step-down.
    """

    def __init__(self, after_step_down: float) -> None:
        self.until = -inf
        """The end of the rest, unless another candidate leads before."""
        self._after_step_down = after_step_down
        self._token: int | None = None  # the token of the term that was stepped down from; None without a step-down

    def resigned(self, now: float) -> None:
        """Rest after a resign. A longer rest is kept."""
        if now >= self.until:
            self._token = None
        self.until = max(self.until, now + YIELD_FOR)

    def stepped_down(self, token: int, now: float) -> None:
        """Rest after a step-down; `token` names the term that was given up."""
        self.until, self._token = max(self.until, now + self._after_step_down), token

    def heard(self, reply: Reply, me: str) -> None:
        """End the rest if a reply shows that another candidate has led.

        After a step-down an operator's `DISABLED` does not count as such a candidate. A newer token shows that another
        candidate has led and has already released the lease.
        """
        others = reply.holder not in (None, me)
        if self._token is not None:
            newer = reply.token is not None and reply.token > self._token and reply.holder != me
            others = reply.outcome not in _NOTHING_READ and (reply.outcome is Outcome.HELD or newer)
        if others:
            self.until, self._token = -inf, None

    def after_step_down(self, now: float) -> float:
        """Seconds for which the candidate still rests after a step-down; 0 if it does not."""
        return max(0.0, self.until - now) if self._token is not None else 0.0
