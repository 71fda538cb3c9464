"""`python -m tests.service.database.frozen_copy DSN`: a leader that stops in the middle of its COPY.

It prints 'copying' before it stops.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from uuid import UUID

from service.database import fenced_writes as writes
from service.database.copy_format import HEADER, copy_rows
from service.database.store import Store
from service.portfolio.valuation import Values
from tests.service.portfolio.reference import nothing_held
from tests.support.work_fakes import FakeTerm


async def half(values: AsyncIterator[Values], staged: writes.Staged) -> AsyncIterator[bytes]:
    """Yield the first half of the COPY, and never the second half."""
    copied = HEADER + b"".join([copy_rows(part) async for part in values])
    yield copied[: len(copied) // 2]
    sys.stdout.write("copying\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


async def main(dsn: str) -> None:
    writes._copied = half
    values = nothing_held([UUID(int=1)])
    async with await Store.connect(dsn, idle_limit=10.0, call_limit=10.0) as store:
        await store.claim_fence(FakeTerm())
        async with store.fenced(FakeTerm(), values) as fenced:
            await fenced.live(date(2026, 3, 2), datetime.now(UTC))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
