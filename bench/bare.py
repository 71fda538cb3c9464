"""A bare aiohttp program, with which the sidecar is compared: `python -m bench.bare PORT ANSWERS`.

It imports the libraries of the sidecar, serves the routes below, and does nothing else. ANSWERS is a JSON object: the
body for each path. `GET /held` waits until the next `POST /change`; with `?wait=N` it waits for at most N seconds.
"""

import asyncio
import json
import sys
from contextlib import suppress
from importlib import import_module

import uvloop
from aiohttp import web

for library in ("prometheus_client", "redis.asyncio"):
    import_module(library)


class Bare:
    """The handlers."""

    def __init__(self, answers: dict[str, str]) -> None:
        self._answers = {path: body.encode() for path, body in answers.items()}
        self._changed = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        """Answer with the body of the path."""
        return web.Response(body=self._answers[request.path], content_type="application/json")

    async def held(self, request: web.Request) -> web.Response:
        """Answer after the next change, or after `wait` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(float(request.query.get("wait", "inf"))):
                await self._changed.wait()
        return web.Response(body=next(iter(self._answers.values())), content_type="application/json")

    async def change(self, _: web.Request) -> web.Response:
        """Answer all requests that are held."""
        self._changed.set()
        self._changed = asyncio.Event()
        return web.Response()


async def main(port: int, answers: dict[str, str]) -> None:
    """Serve until the process is stopped."""
    bare = Bare(answers)
    app = web.Application()
    app.add_routes([web.get(path, bare.answer) for path in answers])
    app.add_routes([web.get("/held", bare.held), web.post("/change", bare.change)])
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), json.loads(sys.argv[2])))
