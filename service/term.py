"""The term that the work runs in, as far as the work knows it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from service.database import StoreError
from service.store import Store

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
    while True:
        term.check()
        try:
            await store.take_up(term.name, term.token, term.holder)
        except StoreError as error:
            store.writes.of(term.name).failed()
            logger.warning("cannot take up the term yet: %s", error, extra={"lease": term.name, "token": term.token})
            await sleep(RETRY_DELAY)
        else:
            logger.info("term taken up in the database", extra={"lease": term.name, "token": term.token})
            return
