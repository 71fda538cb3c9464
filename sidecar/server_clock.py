"""What time it is at the Redis server, as far as its replies tell: for the deadlines that scripts carry."""


class ServerClock:
    """An estimate that is never ahead of the server's clock, as long as neither clock has stepped since the last reply.

    Never ahead is the safe side: a deadline stated in it comes no later at the server than it does here. It lags by the
    time that the last reply took on its way.
    """

    def __init__(self) -> None:
        self._offset: float | None = None

    def observe(self, server_time: int, received_at: float) -> None:
        """A reply that was received at `received_at` (s, our clock) said that it was `server_time` (µs) there."""
        self._offset = server_time / 1e6 - received_at

    def forget(self) -> None:
        """The next reply may come from another server."""
        self._offset = None

    def at(self, moment: float) -> int:
        """The server's time, in µs, at `moment` of our clock (s); 0, which has always passed, while unknown."""
        return 0 if self._offset is None else int((moment + self._offset) * 1e6)
