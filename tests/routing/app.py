"""A service that uses a sidecar, run as a process: `python -m tests.routing.app NAME ADDRESS PORT DATABASE`.

`POST /work` writes into a database with the token of the term, through a fence that refuses the write of an older term.
A follower answers 503. With `?stale` in the request, a follower writes with its last token, like a program that was
frozen between the check and the write.
"""

import asyncio
import os
import sqlite3
import sys

from aiohttp import web

from sidecar.client import LeaseClient, Term

NAME = "background_services"
FENCED_WRITE = "UPDATE work SET token = ?1, writer = ?2, writes = writes + 1 WHERE token <= ?1"


async def main(name: str, address: str, port: int, database: str) -> None:
    """Campaign until SIGTERM, and serve for `LINGER` seconds longer."""
    last = 0
    connection = sqlite3.connect(database, timeout=30, isolation_level=None)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(15, stop.set)

    async def lead(term: Term) -> None:
        nonlocal last
        last = term.token
        await asyncio.Event().wait()

    async with LeaseClient(os.environ["SIDECAR_URL"]) as client:
        leadership = client.leadership(NAME)

        async def work(request: web.Request) -> web.Response:
            token = leadership.token
            if token is None and "stale" not in request.query:
                return web.json_response({"task": name}, status=503)
            written = connection.execute(FENCED_WRITE, (token or last, name)).rowcount
            return web.json_response({"task": name, "written": written == 1})

        app = web.Application()
        app.router.add_post("/work", work)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, address, port).start()
        campaign = asyncio.create_task(leadership.run(lead))
        await stop.wait()
        campaign.cancel()
        await asyncio.wait((campaign,))
        await asyncio.sleep(float(os.environ.get("LINGER", "0")))  # continue to serve, like an old leader
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
