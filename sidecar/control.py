"""The two HTTP listeners: the contract with the client on the task's loopback, and the metrics for everybody."""

import json
import math
import re
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import CollectorRegistry

from runtime.listener import Limits
from runtime.local_requests import refusal
from sidecar.election.candidate import Candidate
from sidecar.election.protocol import Timings

LONGEST_WAIT = 30.0
"""How long a request may be held back, in seconds."""

CLIENT = "X-Lease-Client"
"""The header in which a client names itself with a word of its own: required to resign, which a page cannot send."""
LONGEST_NAME = 64

METRICS_LIMITS = Limits(connections=64, per_peer=8, header=10.0, idle=75.0)
"""The metrics listener: all of the network may reach it, but leaves the file descriptors to Redis and the client."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Control:
    """Answers the client's questions from the leases' state; no question costs a command in Redis.

    Args:
        boot: hexadecimal digits, other ones at every start of the sidecar; part of every version.
        status: what `GET /status` tells beside the leases.
    """

    def __init__(
        self,
        candidate: Candidate,
        instance_id: str,
        timings: Timings,
        *,
        boot: str,
        clock: Callable[[], float],
        status: Callable[[], dict[str, Any]],
    ) -> None:
        self._candidate = candidate
        self._instance_id = instance_id
        self._timings = timings
        self._boot = boot
        self._clock = clock
        self._status = status

    def app(self) -> web.Application:
        """The control listener's application, for a `Listener`. It must be served with handler cancellation."""
        app = web.Application(client_max_size=1024, middlewares=[_refuse_pages])
        app.router.add_get("/is-leader", self._are_leaders, allow_head=False)
        app.router.add_get("/is-leader/{lease}", self._is_leader, allow_head=False)
        app.router.add_get("/leader/{lease}", self._leader)
        app.router.add_post("/resign/{lease}", self._resign)
        app.router.add_get("/status", self._tell_status)
        app.router.add_get("/healthz", self.healthz)
        return app

    async def healthz(self, _: web.Request) -> web.Response:
        """200 while the election loop goes round, whatever Redis does; else 503."""
        if self._candidate.progresses():
            return _json({"status": "ok"})
        return _json({"status": "stuck", "error": "the election loop makes no progress"}, status=503)

    async def _is_leader(self, request: web.Request) -> web.Response:
        arrived = self._clock()
        name = self._lease(request)
        await self._asked([name], request)
        return _json(self._answer(name, arrived, request))

    async def _are_leaders(self, request: web.Request) -> web.Response:
        arrived = self._clock()
        names = list(self._candidate.leases)
        await self._asked(names, request)
        leases = {name: self._answer(name, arrived, request) for name in names}
        is_leader = all(answer["is_leader"] for answer in leases.values())
        version = self._version(names)
        return _json({"instance_id": self._instance_id, "is_leader": is_leader, "version": version, "leases": leases})

    async def _leader(self, request: web.Request) -> web.Response:
        name = self._lease(request)
        leads = self._candidate.leases[name].leads(self._clock())
        return _json({"lease": name, "is_leader": leads}, status=200 if leads else 503)

    async def _resign(self, request: web.Request) -> web.Response:
        name = self._lease(request)
        if not _client(request):
            raise _refusal(web.HTTPForbidden, f"the header {CLIENT} is missing")
        resigned = self._candidate.resigned(name, _token(request), _client(request))
        return _json({"lease": name, "resigned": resigned})

    async def _tell_status(self, _: web.Request) -> web.Response:
        now = self._clock()
        leases = {}
        for name, lease in self._candidate.leases.items():
            view = lease.view(now)
            leases[name] = {
                "state": view.state,
                "is_leader": lease.leads(now),
                "holder": view.holder,
                "token": view.token,
                "remaining": round(lease.remaining(now), 3),
                "trouble": self._candidate.trouble[name],
            }
        return _json({"instance_id": self._instance_id, "leases": leases, **self._status()})

    def _lease(self, request: web.Request) -> str:
        name = request.match_info["lease"]
        if name not in self._candidate.leases:
            raise _refusal(web.HTTPNotFound, f"there is no lease {name!r}", leases=list(self._candidate.leases))
        return name

    async def _asked(self, names: list[str], request: web.Request) -> None:
        """Note that a client asks, and hold its question back as it wishes."""
        wait, version, token = _wait(request), request.query.get("version"), _token(request)
        if version is not None and not re.fullmatch(r"[0-9a-f]+-[0-9]+", version):
            raise _refusal(web.HTTPBadRequest, f"version: {version[:80]!r} is not one that an answer gave")
        for name in names:
            self._candidate.asked(name)
        unknown = [name for name in names if not self._candidate.leases[name].known()]
        if unknown:  # a sidecar that was restarted may lead still: 'no' would end work that could go on
            await self._candidate.hold(unknown, self._candidate.version(unknown), self._timings.call_limit)
        if not wait or version != self._version(names):
            return
        now, client = self._clock(), _client(request)
        stands = min(self._candidate.leases[name].stands_for(now, client, token) for name in names)
        await self._candidate.hold(names, self._candidate.version(names), min(wait, stands))

    def _version(self, names: list[str]) -> str:
        return f"{self._boot}-{self._candidate.version(names)}"

    def _answer(self, name: str, arrived: float, request: web.Request) -> dict[str, Any]:
        grant = self._candidate.granted(name, arrived, _client(request), _token(request))
        view = self._candidate.leases[name].view(self._clock())
        return {
            "lease": name,
            "is_leader": grant is not None,
            "instance_id": self._instance_id,
            "holder": view.holder,
            "token": view.token if grant is not None else None,
            "expires_in": grant,
            "state": view.state,
            "version": f"{self._boot}-{view.version}",
        }


def metrics_app(registry: CollectorRegistry, healthz: Handler) -> web.Application:
    """The metrics listener's application: nothing that changes anything."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application(client_max_size=1024)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    return app


def _wait(request: web.Request) -> float:
    text = request.query.get("wait")
    if text is None:
        return 0.0
    try:
        wait = float(text)
    except ValueError:
        wait = math.nan
    if not 0 < wait <= LONGEST_WAIT:
        raise _refusal(web.HTTPBadRequest, f"wait: {text[:80]!r} is not a number of seconds over 0 to {LONGEST_WAIT:g}")
    return wait


def _client(request: web.Request) -> str:
    return request.headers.get(CLIENT, "")[:LONGEST_NAME]


def _token(request: web.Request) -> int | None:
    """Of the term that the client believes in, or gives up."""
    token = request.query.get("token")
    if token is not None and not re.fullmatch(r"[0-9]{1,16}", token):
        raise _refusal(web.HTTPBadRequest, f"token: {token[:80]!r} is not one that an answer gave")
    return int(token) if token is not None else None


@web.middleware
async def _refuse_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what a web page in a browser on this machine sends: to ask and to resign change something."""
    if error := refusal(request):
        raise _refusal(web.HTTPForbidden, error)
    return await handler(request)


def _json(content: dict[str, Any], *, status: int = 200) -> web.Response:
    return web.Response(body=json.dumps(content).encode(), status=status, content_type="application/json")


def _refusal(kind: type[web.HTTPError], error: str, **more: object) -> web.HTTPError:
    return kind(text=json.dumps({"error": error, **more}), content_type="application/json")
