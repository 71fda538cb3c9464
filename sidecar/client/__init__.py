"""The client library: runs work in a program beside the sidecar, only while the program leads.

    async with LeaseClient() as client:
        await client.leadership("background_services").run(work)  # async def work(term: Term) -> None

The client's own clock decides when a grant ends. A grant counts from before its request was sent and ends at its
deadline, whatever the sidecar does: an error, a silence or a malformed answer never extends it. The client asks the
sidecar only while `run` is active, because each request to `/is-leader` campaigns for the lease. `LeaseClient.status`
and `Leadership.history` report to people: they neither campaign nor grant anything, and raise `Unknown` without a valid
answer.
"""

from sidecar.client.leadership import Leadership, LeaseClient
from sidecar.client.reports import LeaseReport, PastTerm, SidecarReport
from sidecar.client.term import Term, TermOver
from sidecar.client.unknown import Unknown

__all__ = [  # noqa: RUF022 - in the order of use
    "LeaseClient", "Leadership", "Term", "TermOver",
    "SidecarReport", "LeaseReport", "PastTerm", "Unknown",
]  # fmt: skip
