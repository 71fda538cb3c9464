"""A FastAPI app that does its background work only while it leads; `GET /` shows the leader.

README.md in this folder describes how to run it.
"""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from sidecar.client import LeaseClient, Term

LEASE = os.environ.get("LEASE", "background_services")
SIDECAR_URL = os.environ.get("SIDECAR_URL", "http://127.0.0.1:4040")


class Ticker:
    """The background work: a counter that must run in only one process at a time."""

    def __init__(self) -> None:
        self.ticks = 0

    async def work(self, term: Term) -> None:
        """Count until the client cancels this call at the end of the term."""
        print(f"term {term.token}: working", flush=True)
        try:
            while True:
                term.check()  # between two steps; a write to a database would also carry term.token
                self.ticks += 1
                await asyncio.sleep(0.1)
        finally:
            print(f"term {term.token}: stopped after {self.ticks} ticks", flush=True)


@contextmanager
def on_stop_signal(stop: Callable[[], object]) -> Iterator[None]:
    """At the stop signal, schedule `stop` in the event loop, then call the server's own handler.

    uvicorn ends the lifespan only after all connections have closed, so an open stream would otherwise keep the work
    running.
    """
    if threading.current_thread() is not threading.main_thread():  # as in Starlette's TestClient, which has no signals
        yield
        return
    loop = asyncio.get_running_loop()
    servers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop)
        if callable(server := servers[signal.Signals(number)]):
            server(number, frame)

    for number in servers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, server in servers.items():
            signal.signal(number, server)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Campaign from the start until the stop signal, and resign the lease after the end of the work."""
    ticker = Ticker()
    async with LeaseClient(SIDECAR_URL) as client, asyncio.TaskGroup() as tasks:
        app.state.ticker = ticker
        app.state.lead = client.leadership(LEASE)
        campaign = tasks.create_task(app.state.lead.run(ticker.work))
        with on_stop_signal(campaign.cancel):
            yield
        campaign.cancel()  # for a server that ends the lifespan without a signal


app = FastAPI(title="Work while leading", lifespan=lifespan)


@app.get("/")
async def who_leads(request: Request) -> dict[str, Any]:
    """Return the leader of the lease, as reported by this process's sidecar."""
    lead = request.app.state.lead
    return {
        "lease": lead.name,
        "is_leader": lead.is_leader,
        "holder": lead.holder,
        "token": lead.token,
        "remaining": round(lead.remaining(), 3),
        "instance_id": lead.instance_id,
        "state": lead.state,
        "ticks": request.app.state.ticker.ticks,
    }


@app.get("/ticks")
async def stream_ticks(request: Request) -> StreamingResponse:
    """Send the number of ticks once a second as server-sent events, over a connection that stays open."""

    async def events() -> AsyncIterator[str]:
        while True:
            yield f"data: {request.app.state.ticker.ticks}\n\n"
            await asyncio.sleep(1)

    return StreamingResponse(events(), media_type="text/event-stream")
