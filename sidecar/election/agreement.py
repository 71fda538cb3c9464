"""The check of the other tasks' LEASE_TTL: if a key lives longer than our LEASE_TTL, its holder has a larger value.

The failover guard waits for one ttl of the task that campaigns. A holder with a longer ttl may still believe after that
time that it leads.
"""

from sidecar.protocol import Outcome, Reply, Timings


class LeaseTtl:
    """Compares the time to live of one lease's key with our own ttl.

    A holder with a shorter ttl looks like a holder whose renewals are late, so it is not reported.

    Args:
        timings: the durations of the protocol. A key may live half the margin longer than our ttl, because the server's
            clock may step back.
    """

    def __init__(self, timings: Timings) -> None:
        self._ttl = timings.ttl
        self._limit = timings.ttl + timings.margin / 2
        self._holder: str | None = None  # the holder whose key lived longer than the limit

    def observe(self, reply: Reply) -> str | None:
        """A line for people about a holder whose key lives too long; None without one.

        The holder is reported until a reply shows that it no longer holds the key.
        """
        if reply.outcome is Outcome.HELD and reply.holder and (reply.ttl or 0.0) > self._limit:
            self._holder = reply.holder
        elif reply.outcome is not Outcome.LATE and reply.holder != self._holder:
            self._holder = None
        if self._holder is None:
            return None
        return (
            f"the key of {self._holder} lives for longer than this task's LEASE_TTL ({self._ttl:g} s): the tasks have"
            " different values of LEASE_TTL, or somebody wrote the key by hand. After a failover two tasks may lead;"
            ' docs/redis.md, "Change what all tasks share", says how to change LEASE_TTL'
        )
