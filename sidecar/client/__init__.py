"""The client library: runs work in a program beside the sidecar, only while the program leads.

    async with LeaseClient() as client:
        await client.leadership("background_services").run(work)  # async def work(term: Term) -> None

The client's own clock decides when a grant ends. A grant counts from before its request was sent. It ends at its
deadline, unless a valid answer extends it or ends it earlier. An error, a silence or a malformed answer does neither.
The client asks the sidecar only while `run` is active, because each request to `/is-leader` campaigns for the lease.
`LeaseClient.status` and `Leadership.history` report to people: they neither campaign nor grant anything, and raise
`Unknown` without a valid answer.
"""

from sidecar.client.leadership import Leadership, LeaseClient
from sidecar.client.reports import LeaseReport, PastTerm, SidecarReport
from sidecar.client.term import Term, TermOver
from sidecar.client.unknown import Unknown

__all__ = [  # noqa: RUF022 - in the order of use
    "LeaseClient", "Leadership", "Term", "TermOver",
    "SidecarReport", "LeaseReport", "PastTerm", "Unknown",
]  # fmt: skip
