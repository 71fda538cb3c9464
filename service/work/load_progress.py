"""How far the leader has come with loading positions, told where every task can read it: in the database."""

import asyncio
import logging
from collections.abc import Callable
from typing import Never

from service.database.connection import StoreError
from service.database.store import Store
from service.outage import Outage
from service.portfolio.records import Loading
from service.work.term import Sleep, Term

INTERVAL = 2.0
"""Seconds from one look, and one write at most, to the next. A load that is shorter is not told of."""

logger = logging.getLogger(__name__)


async def tell_loading(
    store: Store, term: Term, loading: Callable[[], Loading | None], sleep: Sleep = asyncio.sleep
) -> Never:
    """Write down where `loading` stands for as long as it says something, until the term is over.

    Raises:
        StaleTerm: a newer term has taken the lease up in the database.
        TermOver: the term said so.
    """
    told = False
    outage = Outage(
        logger,
        "the progress of loading positions is not written: %s",
        "the progress of loading positions is written again",
    )
    while True:
        await sleep(INTERVAL)
        term.check()
        now = loading()
        try:
            if now is not None:
                await store.tell_loading(term.name, term.token, term.holder, now)
                told = True
            elif told:
                await store.forget_loading(term.name, term.token)
                told = False
        except StoreError as error:
            outage.met(error, {"lease": term.name})
        else:
            outage.over({"lease": term.name})
