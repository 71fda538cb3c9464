"""What time it is at the Redis server of a connection, as far as its replies tell: for the deadlines of scripts."""


class ServerClock:
    """An estimate that is never ahead of the server's clock, as long as neither clock has stepped since the last reply.

    Never ahead is the safe side: a deadline stated in it comes no later at the server than it does here. It lags by the
    time that the last reply took on its way.

    Args:
        lasts: seconds after which a reply says nothing any more, since the two clocks differ in rate. Without this a
            candidate that nobody asked for an hour would give its next call a deadline that is wrong by that hour's
            drift.
    """

    def __init__(self, lasts: float) -> None:
        self._lasts = lasts
        self._offset: float | None = None
        self._observed_at = 0.0

    def observe(self, server_time: int, received_at: float) -> None:
        """A reply that was received at `received_at` (s, our clock) said that it was `server_time` (µs) there."""
        self._offset = server_time / 1e6 - received_at
        self._observed_at = received_at

    def at(self, moment: float, now: float) -> int:
        """The server's time, in µs, at `moment` of our clock (s); 0, which has always passed, while unknown."""
        if self._offset is None or now > self._observed_at + self._lasts:
            return 0
        return int((moment + self._offset) * 1e6)
