"""The report of /background/history: the last terms of each lease, in all tasks."""

import asyncio
from collections.abc import Mapping
from functools import partial

from service.api import internal_responses
from service.api.recent import Recent
from service.work.background import SCHEDULER_LEASE, TRACKER_LEASE
from sidecar.client import Leadership, Unknown

LIMIT = 6.0
"""Seconds to wait for the sidecar, which asks Redis; longer than the limit of `sidecar.client`."""


class LeaseHistories:
    """Asks the sidecar for the last terms of the leases, at most once a second for any number of clients."""

    def __init__(self, leaderships: Mapping[str, Leadership]) -> None:
        self._terms = {name: Recent(partial(_read, leadership), LIMIT) for name, leadership in leaderships.items()}

    async def report(self) -> internal_responses.History:
        """The last terms. The list is empty if the sidecar does not answer or has no history."""
        tracker, scheduler = await asyncio.gather(
            *(self._terms[name].get() for name in (TRACKER_LEASE, SCHEDULER_LEASE))
        )
        none = internal_responses.LeaseHistory(terms=[], trouble="no answer in time")
        return internal_responses.History(
            leases=internal_responses.Histories(
                background_services=tracker or none,
                daily_scheduler=scheduler or none,
            )
        )

    async def close(self) -> None:
        """End the requests that still run."""
        for terms in self._terms.values():
            await terms.close()


async def _read(leadership: Leadership) -> internal_responses.LeaseHistory:
    try:
        terms = await leadership.history()
    except Unknown as unknown:
        return internal_responses.LeaseHistory(terms=[], trouble=str(unknown))
    newest = [internal_responses.PastTerm.of(term) for term in terms[: internal_responses.MOST_TERMS]]
    return internal_responses.LeaseHistory(terms=newest, trouble=None)
