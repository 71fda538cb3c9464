"""`python -m tests.service.work.frozen_leader DSN`: a leader that waits in the middle of a transaction.

It begins two transactions, one after the other. When a row is written but not committed, it prints 'writing' and waits
for a line on its stdin. After each transaction it prints how the transaction ended.
"""

import asyncio
import sys
from datetime import UTC, date, datetime
from uuid import UUID

from service.database.connection import StaleTerm, StoreError
from service.database.store import Store
from tests.service.portfolio.reference import nothing_held
from tests.support.work_fakes import FakeTerm


def say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


async def main(dsn: str) -> None:
    values = nothing_held([UUID(int=1)])
    async with await Store.connect(dsn, idle_limit=3.0) as store:
        await store.claim_fence(FakeTerm())
        for _ in range(2):
            try:
                async with store.fenced(FakeTerm(), values) as writes:
                    await writes.live(date(2026, 3, 2), datetime.now(UTC))
                    say("writing")
                    await asyncio.to_thread(sys.stdin.readline)
                    await writes.live(date(2026, 3, 3), datetime.now(UTC))
            except (StaleTerm, StoreError) as error:
                say(type(error).__name__)
            else:
                say("committed")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
