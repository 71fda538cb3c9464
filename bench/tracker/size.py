"""All measurements of one number of portfolios."""

import os
import resource
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.cost import Cost, Machine
from bench.tracker.closing import capture, load
from bench.tracker.limit import Limit
from bench.tracker.plain import SAMPLE, plain
from bench.tracker.portfolios import fill
from bench.tracker.rounds import Rounds, rounds
from bench.tracker.stand_ins import OpenStore
from bench.tracker.steps import steps
from bench.tracker.streams import slowest_listener
from ops.local.servers import PostgresServer
from service.database.migrations import migrate

SERVER = ("shared_buffers=1GB", "max_wal_size=4GB")


@dataclass(frozen=True)
class Size:
    """The measurements for one number of portfolios."""

    portfolios: int
    loading: Cost
    update: Cost
    rounds: Rounds
    steps: list[tuple[str, Cost]]
    captures: list[Cost]
    listener: float
    """Seconds from a commit until the last client has the values."""
    plain: tuple[Cost, Cost, Cost]
    """Costs of loading, a tick and the whole EOD capture in the plain implementation, scaled up."""
    tick_memory: float
    """Maximum memory of the process with ticks, in MiB."""
    eod_memory: float
    """Maximum memory of the process with the EOD capture too, in MiB."""
    load: float
    """Load of the machine at the end."""
    postgres: str
    """Version of the server."""


async def measure_size(portfolios: int) -> Size:
    """Measure one number of portfolios on a new Postgres."""
    with tempfile.TemporaryDirectory() as folder, PostgresServer(Path(folder), settings=SERVER) as server:
        if server.process is None:
            raise RuntimeError("Postgres did not start")
        machine = Machine(psutil.Process(server.process.pid))
        await migrate(server.url)
        await fill(server.url, portfolios)
        async with await OpenStore.connect(server.url, call_limit=600) as store:
            loading, update = await load(store, machine, portfolios)
            store.book = None
            limit = await Limit.create(server.url, Path(folder), machine)
            found = await rounds(store, limit, machine)
            store.book = None
            tick_memory = _peak()
            by_step = await steps(server.url, limit, machine)
            await limit.aclose()
            captures = await capture(store, machine, portfolios)
            eod_memory = _peak()
            listener = await slowest_listener(server.url, store)
            async with store._connection() as connection:  # noqa: SLF001 - `Store` has no method for the server's version
                version = str(await connection.fetchval("show server_version"))
        plain_costs = await plain(server.url, machine)
    loading_plainly, tick_plainly, closing_plainly = (cost.scaled(portfolios / SAMPLE) for cost in plain_costs)
    return Size(
        portfolios,
        loading,
        update,
        found,
        by_step,
        captures,
        listener,
        (loading_plainly, tick_plainly, closing_plainly),
        tick_memory,
        eod_memory,
        os.getloadavg()[0],
        version,
    )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
