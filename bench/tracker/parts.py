"""The processor seconds of each part of a tick."""

import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import psutil

import service.database.store as store_module
from service.database import fenced_writes
from service.database.fenced_writes import FencedWrites, stage
from service.work import tracker

VALUATION, ENCODING = "service: valuation in NumPy", "service: encoding for COPY in NumPy"
STAGING = "Postgres: COPY into the temporary table"
STATEMENTS = {
    "live": "Postgres: update of portfolio_live",
    "intraday": "Postgres: intraday points",
    "quotes": "Postgres: prices",
}


def _backend_seconds(connection: Any) -> float:
    times = psutil.Process(connection.get_server_pid()).cpu_times()
    return times.user + times.system


@contextmanager
def observed() -> Iterator[dict[str, float]]:
    """Add up the processor seconds of each part while the block runs; the caller may clear the sums."""
    seconds, one_thread = defaultdict[str, float](float), threading.Lock()

    def computed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            began = time.thread_time()
            found = function(*args)
            spent = time.thread_time() - began
            with one_thread:
                seconds[part] += spent
            return found

        return call

    def written(part: str, function: Callable[..., Awaitable[Any]], server: Callable[[Any], Any]) -> Any:
        async def call(first: Any, *args: Any) -> Any:
            began = _backend_seconds(server(first))
            found = await function(first, *args)
            seconds[part] += _backend_seconds(server(first)) - began
            return found

        return call

    with ExitStack() as patches:
        for owner, name, part in ((tracker, "value_block", VALUATION), (fenced_writes, "copy_rows", ENCODING)):
            patches.enter_context(patch.object(owner, name, computed(part, getattr(owner, name))))
        staged = written(STAGING, stage, lambda connection: connection)
        patches.enter_context(patch.object(store_module, "stage", staged))
        for name, part in STATEMENTS.items():
            method = getattr(FencedWrites, name)
            statement = written(part, method, lambda writes: writes._connection)  # noqa: SLF001 - the processor time of the connection's backend
            patches.enter_context(patch.object(FencedWrites, name, statement))
        yield seconds
