"""The term that the work runs in, as far as the work knows it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from service.database.connection import StoreError
from service.database.store import Store
from service.outage import Outage

logger = logging.getLogger(__name__)

Sleep = Callable[[float], Awaitable[None]]

LONGEST_SLEEP = 60.0
"""Seconds after which a sleeper looks at the clock again: it may have been set, or the machine suspended."""

RETRY_DELAY = 1.0
"""Seconds between two attempts to take a term up while the database is away."""


class Term(Protocol):
    """One tenure of this process under one lease; `sidecar.client.Term` is one, and so is a run by hand."""

    @property
    def name(self) -> str:
        """The lease."""

    @property
    def token(self) -> int:
        """The fencing token: larger in every later term."""

    @property
    def holder(self) -> str:
        """The instance id."""

    def check(self) -> None:
        """Raise `sidecar.client.TermOver` if this term is over; called between two steps of the work."""


async def take_up(store: Store, term: Term, sleep: Sleep = asyncio.sleep) -> None:
    """Make the term the newest in the database, however long the database is away; nothing is written before.

    Raises:
        StaleTerm: a newer term was here first.
    """
    about = {"lease": term.name, "token": term.token}
    outage = Outage(
        logger, "the term cannot be taken up yet, and it is tried again: %s", "the database takes terms again"
    )
    while True:
        term.check()
        try:
            await store.take_up(term.name, term.token, term.holder)
        except StoreError as error:
            store.writes.of(term.name).failed()
            outage.met(error, about)
            await sleep(RETRY_DELAY)
        else:
            outage.over(about)
            logger.info("term taken up in the database", extra=about)
            return
