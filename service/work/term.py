"""The term in which the work runs, and the claim of the fence at its beginning."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from service.database.connection import StoreError
from service.database.store import Store
from service.database.term import FencedTerm
from service.outage import Outage

logger = logging.getLogger(__name__)

Sleep = Callable[[float], Awaitable[None]]

LONGEST_SLEEP = 60.0
"""Longest sleep in seconds. After each sleep the clock is read again, because the clock may have been set, or the
machine suspended."""

RETRY_DELAY = 1.0
"""Seconds between two attempts to claim the fence during a database outage."""


class Term(FencedTerm, Protocol):
    """One term of this process under one lease: a `sidecar.client.Term`, or the term of a run by hand."""

    def check(self) -> None:
        """Raise `sidecar.client.TermOver` if this term is over. Called between two steps of the work."""


async def claim_fence(store: Store, term: Term, sleep: Sleep = asyncio.sleep) -> None:
    """Claim the fence for the term, and wait during a database outage. Nothing is written before the claim.

    Raises:
        StaleTerm: the fence refuses the term; see `Store.claim_fence`.
        TermOver: the term is over.
    """
    fields = {"lease": term.name, "token": term.token}
    outage = Outage(logger, "the fence is not claimed yet, retrying: %s", "the fence can be claimed again")
    while True:
        term.check()
        try:
            await store.claim_fence(term)
        except StoreError as error:
            store.writes.of(term.name).failed()
            outage.failed(error, fields)
            await sleep(RETRY_DELAY)
        else:
            outage.recovered(fields)
            logger.info("the term has claimed the fence", extra=fields | {"event": "fence_claimed"})
            return
