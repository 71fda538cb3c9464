"""The loading of positions, and the EOD capture of several sessions."""

from datetime import UTC, datetime, timedelta

from bench.cost import Cost, Machine
from bench.report import progress
from bench.tracker.stand_ins import Prices, Term
from service.database.store import Store
from service.market.calendar import AroundTheClockCalendar
from service.portfolio.positions import uuids
from service.work.jobs import Jobs

CAPTURES, CHANGED = 3, 1_000


async def load(store: Store, machine: Machine, portfolios: int) -> tuple[Cost, Cost]:
    """Load all positions, then the positions of `CHANGED` portfolios that users changed; returns both costs."""
    today = AroundTheClockCalendar().last_closed(datetime.now(UTC)).date
    with progress(portfolios, "loading", "portfolio") as bar:

        def show(done: int, _: int) -> None:
            bar.update(done - bar.n)

        with machine.cost() as loading:
            book = await store.load_positions(today, show)
    async with store._connection() as connection:  # noqa: SLF001 - `Store` has no method for the writes of many users at once
        await connection.execute(
            "update public.position set quantity = quantity + 1 where portfolio_id = any($1)",
            uuids(book.blocks[0].ids)[:CHANGED],
        )
    with machine.cost() as update:
        await store.update_positions(book, today)
    return loading, update


async def capture(store: Store, machine: Machine, portfolios: int) -> list[Cost]:
    """Run the EOD capture of the last sessions, oldest first; returns the cost of each."""
    calendar = AroundTheClockCalendar()
    jobs, term = Jobs(store, Prices(), calendar), Term("daily_scheduler")
    await store.claim_fence(term)
    costs = []
    with progress(portfolios * CAPTURES, "closing", "portfolio") as bar:
        for number in reversed(range(CAPTURES)):
            session = calendar.last_closed(datetime.now(UTC) - timedelta(days=number))
            before = bar.n

            def show(done: int, _: int, before: float = before) -> None:
                bar.update(before + done - bar.n)

            with machine.cost() as cost:
                rows = await jobs.run("eod", session, term, show)
            if rows != portfolios:
                raise RuntimeError(f"{rows} rows for {portfolios} portfolios")
            costs.append(cost)
    return costs
