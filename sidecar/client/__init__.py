"""What a program beside the sidecar imports, to run work only while it leads.

    async with LeaseClient() as client:
        await client.leadership("background_services").run(work)  # async def work(term: Term) -> None

The client's own clock decides. A grant counts from before the request for it was sent and ends at its deadline,
whatever the sidecar does: an error, a silence or a malformed answer never prolongs it. The sidecar is asked only while
`run` is active, since to ask is to campaign.
"""

from sidecar.client.leadership import Leadership, LeaseClient
from sidecar.client.term import Term, TermOver

__all__ = ["LeaseClient", "Leadership", "Term", "TermOver"]  # noqa: RUF022 - from the outside in
