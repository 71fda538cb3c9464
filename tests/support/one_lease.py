"""One lease, for which the test supplies the clock and the replies of Redis."""

from sidecar.election.lease import Lease
from sidecar.protocol import Call, Kind, Outcome, Reply, Timings

T = Timings()
BELIEVED = T.ttl - T.margin


def fresh_lease(now: float = 0.0, *, require_client: bool = True, campaign: bool = True) -> Lease:
    return Lease(
        "a",
        T,
        boot="boot",
        now=now,
        uniform=lambda low, high: (low + high) / 2,
        require_client=require_client,
        campaign=campaign,
    )


def due(lease: Lease, now: float, kind: Kind) -> Call:
    call = lease.next_call(now)
    assert call is not None
    assert call.kind is kind
    return call


def answer(lease: Lease, call: Call, now: float, outcome: Outcome, holder: str | None = "a", token: int = 1) -> None:
    lease.replied(call, Reply(outcome, holder, token, ttl=T.ttl if holder else None, tenure="boot-1"), now)


def leading(now: float, *, waits: bool = True) -> Lease:
    """A lease acquired at `now` and granted to its client.

    With `waits`, the sidecar holds another request of the client; else the client is silent.
    """
    lease = fresh_lease()
    lease.asked(now)
    if waits:
        lease.hold()
    answer(lease, due(lease, now, Kind.ACQUIRE), now, Outcome.ACQUIRED)
    assert lease.grant(now, now) == T.grant_ttl
    return lease
