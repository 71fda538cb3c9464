"""Who of a task's clients may act on the sidecar's word, and until when. No I/O, and no clock of its own.

An API may be several processes: a server's workers, or an old process beside its successor. They ask one sidecar, and
of them one leads. A client names itself with a word that is new at each start (the header X-Lease-Client); one without
a name is not told from others.
"""

from math import inf


class Grants:
    """What was granted of one lease.

    Args:
        predecessors: until when a client may act on the word of a sidecar that ran here before, which is not known.
    """

    def __init__(self, predecessors: float) -> None:
        self.until = predecessors
        """Until when some client may act."""
        self._named = ""  # who was granted last, by name; nobody yet: perhaps a predecessor's client
        self._named_until = predecessors

    def taken_for(self, now: float, client: str, *, knows_term: bool) -> float:
        """For how many seconds another client may act, so that the one of this name may not; 0 if none may.

        `knows_term`: it could say the token of the term that is led, which a predecessor has told its client alone.
        """
        if not client or client == self._named or (not self._named and knows_term):
            return 0.0
        return max(0.0, self._named_until - now)

    def stands_for(self, now: float, client: str, grant_ttl: float, *, knows_term: bool) -> float:
        """For how many seconds the answer to this client stays as it is while the term is led.

        While another client may act it is no. A client that may act has its grant prolonged after half a `grant_ttl`.
        A client that has no grant, though no other one may act, has to be answered at once.
        """
        if taken := self.taken_for(now, client, knows_term=knows_term):
            return min(taken, grant_ttl / 2)
        granted_until = self.until if not client else self._named_until if client == self._named else -inf
        return grant_ttl / 2 if now < granted_until else 0.0

    def give(self, client: str, until: float) -> None:
        """The client may act until then."""
        self.until = max(self.until, until)
        if client:
            self._named, self._named_until = client, max(self._named_until, until)

    def take_back(self, now: float, client: str, *, knows_term: bool) -> bool:
        """The client acts no more, and so nobody does. False if another one may, or one that a predecessor told."""
        if client and now < self._named_until and client != self._named and (self._named or not knows_term):
            return False
        self.until = self._named_until = -inf
        return True
