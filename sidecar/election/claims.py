"""The term that a candidate holds, and the other claims on its lease.

The program beside a sidecar may be several processes: the workers of a server, or an old process and its successor. All
of them ask one sidecar, and one of them leads. A client names itself with a word that is new at each start (the header
X-Lease-Client). A client without a name, such as a person with curl, gets the answer yes while the sidecar leads, even
while another client may act.
"""

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from sidecar.protocol import ReleaseReason


class TermOwner(NamedTuple):
    """The client that a term belongs to.

    No other client may get the term's token, because the writes of both would pass the fence.

    `name` is the word that the client gives itself, '' while no named client has the term. `predecessors` is true if
    the term may have been granted to a client whose name is not known: by a previous process of this sidecar, or before
    a failover that restored an older term.
    """

    name: str = ""
    predecessors: bool = False

    def admits(self, client: str, *, knows_token: bool) -> bool:
        """Whether a named client may be granted the term; a predecessor's client is recognized by the token."""
        return knows_token if self.predecessors else self.name in ("", client)


@dataclass(slots=True)
class HeldTerm:
    """A term of this candidate, which believes until `lead_until` that it leads. The first grant sets `granted`.

    `step_down`: an operator asked the candidate to give the term up, so the candidate no longer leads. `left_for`: why
    the key is to be deleted.

    The `tenure` names the attempt that acquired the term or adopted it again. So late calls of an earlier tenure of the
    same term (from before a restart of the sidecar, or before a release without a reply) have no effect on a later
    tenure.
    """

    token: int
    tenure: str
    began: float
    lead_until: float
    owner: TermOwner
    granted: bool = False
    step_down: bool = False
    left_for: ReleaseReason | None = None


class Demand:
    """The clients that want one lease.

    Args:
        lasts: seconds for which a client's request counts as demand after its arrival or its answer.
        always: the lease is wanted even if no client asks.
    """

    def __init__(self, lasts: float, *, always: bool) -> None:
        self.always = always
        self.until = -inf
        """The time until which requests count as demand after their arrival or their answer."""
        self.holds = 0
        """The number of held requests. A client that waits for an answer counts as asking."""
        self._lasts = lasts
        self._withdrawals = 0

    def asked(self, now: float) -> None:
        """Count a client's request as demand from now on."""
        self.until = max(self.until, now + self._lasts)

    def hold(self) -> int:
        """Count a held request; returns the ticket for `unhold`."""
        self.holds += 1
        return self._withdrawals

    def unhold(self, ticket: int, now: float, *, answered: bool) -> None:
        """End a held request: it was `answered`, or its client has gone. A ticket from before `withdraw` is ignored."""
        if ticket == self._withdrawals:
            self.holds -= 1
            if answered:
                self.asked(now)

    def withdraw(self) -> None:
        """Forget all demand, held requests included, until a client asks again."""
        self.until, self.holds = -inf, 0
        self._withdrawals += 1

    def forget_answered(self) -> None:
        """Forget all demand except held requests."""
        self.until = -inf

    @property
    def open_ended(self) -> bool:
        """Whether the demand has no time limit."""
        return self.always or self.holds > 0

    def wanted(self, now: float) -> bool:
        """Whether a client wants the lease now."""
        return self.open_ended or now < self.until


class Grants:
    """The permission to act that clients were given for one lease.

    Args:
        predecessors: the end of grants that an earlier process of this sidecar may have given.
    """

    def __init__(self, predecessors: float) -> None:
        self.until = predecessors
        """The end of the last grant, whether its client has a name or not."""
        self._named = ""  # the last named client with a grant; while '', a predecessor's client may have a grant
        self._named_until = predecessors

    def seconds_held_by_other_client(self, now: float, client: str, *, knows_term: bool) -> float:
        """Seconds for which another client may act, so that `client` may not.

        The result is 0 if no other client may act, or if `client` has no name.

        Args:
            now: the current time.
            client: the name of the client that asks.
            knows_term: false only if the current term may belong to a predecessor's client, and `client` did not send
                the term's token. A predecessor gave the token to its client only.
        """
        if not client or client == self._named or (not self._named and knows_term):
            return 0.0
        return max(0.0, self._named_until - now)

    def answer_valid_for(self, now: float, client: str, grant_ttl: float, *, knows_term: bool) -> float:
        """Seconds for which the answer to `client` stays the same while the candidate leads.

        The answer is 'no' while another client may act. A client that may act gets a longer grant after half a
        `grant_ttl`. A client without a grant is answered at once if no other client may act.
        """
        if other := self.seconds_held_by_other_client(now, client, knows_term=knows_term):
            return min(other, grant_ttl / 2)
        granted_until = self.until if not client else self._named_until if client == self._named else -inf
        return grant_ttl / 2 if now < granted_until else 0.0

    def give(self, client: str, until: float) -> None:
        """Let the client act until the time `until`."""
        self.until = max(self.until, until)
        if client:
            self._named, self._named_until = client, max(self._named_until, until)

    def take_back(self, now: float, client: str, *, knows_term: bool) -> bool:
        """End all grants, because the client has stopped.

        Returns False, and ends no grant, if another client or a predecessor's client may act.
        """
        if client and now < self._named_until and client != self._named and (self._named or not knows_term):
            return False
        self.until = self._named_until = -inf
        return True


class UnansweredAcquires:
    """Acquires whose effect is unknown until a later reply shows who holds the key."""

    def __init__(self) -> None:
        self.pending = False
        """Whether such an acquire exists."""
        self.until = -inf
        """The time after which no such acquire can execute: from then on a look shows the holder of the key."""

    def may_execute(self, *, until: float) -> None:
        """Add an acquire that may execute until then."""
        self.pending, self.until = True, max(self.until, until)

    def answered(self, sent_at: float) -> None:
        """Record the answer to a call sent at `sent_at`.

        If no such acquire could execute any more at that time, the answer shows who holds the key.
        """
        if sent_at >= self.until:
            self.pending, self.until = False, -inf
