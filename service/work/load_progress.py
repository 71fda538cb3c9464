"""The leader's progress in loading positions, recorded in the database, where every task can read it."""

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
"""Seconds between two records of the progress. A shorter load may not be recorded."""

logger = logging.getLogger(__name__)


async def report_load_progress(
    store: Store, term: Term, loading: Callable[[], Loading | None], sleep: Sleep = asyncio.sleep
) -> Never:
    """Record the progress that `loading` returns, unless it returns None, until the term is over.

    Raises:
        StaleTerm: a newer term has claimed the fence.
        TermOver: the term is over.
    """
    is_recorded = False
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
                await store.record_loading(term, now)
                is_recorded = True
            elif is_recorded:
                await store.forget_loading(term)
                is_recorded = False
        except StoreError as error:
            outage.failed(error, {"lease": term.name})
        else:
            outage.recovered({"lease": term.name})
