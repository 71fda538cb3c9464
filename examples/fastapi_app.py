"""A FastAPI app that does its background work only while it leads; `GET /` shows who does.

See README.md beside this file for how to run it.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request

from sidecar.client import LeaseClient, Term

LEASE = os.environ.get("LEASE", "background_services")
SIDECAR_URL = os.environ.get("SIDECAR_URL", "http://127.0.0.1:4040")


class Ticker:
    """The background work: it counts, and must not count in two places at once."""

    def __init__(self) -> None:
        self.ticks = 0

    async def work(self, term: Term) -> None:
        """Runs while we lead: started with each term, cancelled and awaited before the term ends."""
        print(f"term {term.token}: working", flush=True)
        try:
            while True:
                term.check()  # between two steps; a write to a database would carry term.token as well
                self.ticks += 1
                await asyncio.sleep(0.1)
        finally:
            print(f"term {term.token}: stopped after {self.ticks} ticks", flush=True)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Campaign from the start until the shutdown; the lease is resigned once the work has stopped."""
    ticker = Ticker()
    async with LeaseClient(SIDECAR_URL) as client, asyncio.TaskGroup() as tasks:
        app.state.ticker = ticker
        app.state.lead = client.leadership(LEASE)
        campaign = tasks.create_task(app.state.lead.run(ticker.work))
        yield
        campaign.cancel()


app = FastAPI(title="Work while leading", lifespan=lifespan)


@app.get("/")
async def who_leads(request: Request) -> dict[str, Any]:
    """Who leads the lease, as this process knows it."""
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
