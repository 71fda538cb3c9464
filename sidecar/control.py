"""The applications of the two HTTP listeners: control on the task's loopback, and metrics for the network."""

import asyncio
import json
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.http import RawRequestMessage
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import CollectorRegistry

from runtime.listener import Limits
from runtime.local_requests import refusal, refusal_of
from sidecar.control_openapi import description
from sidecar.election.candidate import Candidate
from sidecar.history import Term
from sidecar.protocol import RESIGN_ANSWER_DELAY, Timings, View
from sidecar.redis.history import HistoryUnavailable

LONGEST_WAIT = 30.0
"""Limit of `wait`, in seconds."""

ALL = "/is-leader"
"""The path of a client's request about all leases. For one lease the path ends with its name."""
CLIENT = "X-Lease-Client"
"""The header in which a client names itself. A resign requires the header, because a web page cannot send it."""

METRICS_LIMITS = Limits(connections=64, per_peer=8, header=10.0, idle=75.0)
"""Limits of the metrics listener, which the network may reach. Redis and the client need file descriptors too."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_to_json = json.JSONEncoder(check_circular=False).encode
"""Encoder of an answer, without the check for circular references, which would take a tenth of the time."""

_NUMBER = re.compile(r"[0-9.eE+-]+")
_VERSION = re.compile(r"[0-9a-f]+-[0-9]+")
_TOKEN = re.compile(r"[0-9]{1,16}")


class _LeaseRequest(NamedTuple):
    """A client's request about leases: its time of arrival, the client's name, and the token of its last term."""

    arrived: float
    client: str
    token: int | None = None


class Control:
    """Answers the client's requests from the state of the leases; only `GET /history/NAME` reads from Redis.

    Args:
        candidate: the leases of this task.
        instance_id: the name of this sidecar.
        timings: the durations of the protocol.
        boot: hexadecimal digits, different at every start of the sidecar; part of every version.
        clock: `runtime.clock.elapsed`.
        status: the part of `GET /status` that is not about the leases.
        history: the last terms of a lease, newest first; raises HistoryUnavailable.
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
        history: Callable[[str], Awaitable[list[Term]]],
    ) -> None:
        self._candidate = candidate
        self._instance_id = instance_id
        self._timings = timings
        self._boot = boot
        self._clock = clock
        self._status = status
        self._history = history
        self._names_by_path = {ALL: candidate.names} | {f"{ALL}/{name}": (name,) for name in candidate.names}

    def app(self) -> web.Application:
        """The control listener's application.

        Its `AppRunner` needs `handler_cancellation`: a held request must end when its client disconnects.
        """
        app = web.Application(client_max_size=1024, middlewares=[_refuse_pages])
        app.router.add_get(ALL, self._are_leaders, allow_head=False)
        app.router.add_get(f"{ALL}/{{lease}}", self._is_leader, allow_head=False)
        app.router.add_get("/leader/{lease}", self.leader)
        app.router.add_post("/resign/{lease}", self._resign)
        app.router.add_get("/status", self._report_status)
        app.router.add_get("/history/{lease}", self._report_history, allow_head=False)
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/openapi.json", self._report_description)
        return app

    def answer_at_once(self, message: RawRequestMessage) -> bytes | None:
        """The body of the answer to a frequent request, for a `Listener`; None for every other request.

        The frequent requests are `GET /is-leader` and `GET /is-leader/NAME` without a query. A client that does not
        wait for changes sends many of them. A request that is refused, or that waits for the first reply of Redis, is
        left to the application.
        """
        names = self._names_by_path.get(message.path)
        if names is None or message.method != "GET" or "Expect" in message.headers:
            return None
        if refusal_of(message.method, message.headers) or not self._candidate.heard_from_redis(names):
            return None
        lease_request = _LeaseRequest(self._clock(), _client(message.headers))
        for name in names:
            self._candidate.asked(name)
        answer = self._answers(names, lease_request) if message.path == ALL else self._answer(names[0], lease_request)
        return _to_json(answer).encode()

    async def healthz(self, _: web.Request) -> web.Response:
        """200 while the election loop makes progress, whatever Redis does; else 503."""
        if self._candidate.progresses():
            return _json({"status": "ok"})
        return _json({"status": "stuck", "error": "the election loop makes no progress"}, status=503)

    async def _is_leader(self, request: web.Request) -> web.Response:
        arrived = self._clock()
        name = self._lease(request)
        return _json(self._answer(name, await self._asked((name,), arrived, request)))

    async def _are_leaders(self, request: web.Request) -> web.Response:
        arrived, names = self._clock(), self._candidate.names
        return _json(self._answers(names, await self._asked(names, arrived, request)))

    async def leader(self, request: web.Request) -> web.Response:
        """200 while this task leads the lease, else 503: for probes, proxies and load balancers."""
        name = self._lease(request)
        leads = self._candidate.status(name).leads
        return _json({"lease": name, "is_leader": leads}, status=200 if leads else 503)

    async def _resign(self, request: web.Request) -> web.Response:
        name = self._lease(request)
        if not _client(request.headers):
            raise _refusal(web.HTTPForbidden, f"the header {CLIENT} is missing")
        resigned = self._candidate.resigned(name, _token(request.query.get("token")), _client(request.headers))
        await asyncio.sleep(RESIGN_ANSWER_DELAY)
        return _json({"lease": name, "resigned": resigned})

    async def _report_status(self, _: web.Request) -> web.Response:
        leases = {
            name: {
                "state": status.state,
                "is_leader": status.leads,
                "holder": status.holder,
                "token": status.token,
                "remaining": round(status.remaining, 3),
                "holder_remaining": None if status.holder_remaining is None else round(status.holder_remaining, 3),
                "trouble": status.trouble,
                "step_down": status.step_down,
            }
            for name, status in self._candidate.statuses().items()
        }
        return _json({"instance_id": self._instance_id, "leases": leases, **self._status()})

    async def _report_history(self, request: web.Request) -> web.Response:
        name = self._lease(request)
        try:
            terms = await self._history(name)
        except HistoryUnavailable as error:
            trouble = self._candidate.status(name).trouble
            cause = f"{error} ({trouble})" if trouble and trouble != str(error) else str(error)
            return _json({"error": f"the history of {name} cannot be read: {cause}"}, status=503)
        return _json({"lease": name, "terms": [term.as_json() for term in terms]})

    async def _report_description(self, _: web.Request) -> web.Response:
        return _json(description(list(self._candidate.names), LONGEST_WAIT))

    def _lease(self, request: web.Request) -> str:
        name = request.match_info["lease"]
        if name not in self._candidate.names:
            raise _refusal(web.HTTPNotFound, f"there is no lease {name!r}", leases=list(self._candidate.names))
        return name

    async def _asked(self, names: tuple[str, ...], arrived: float, request: web.Request) -> _LeaseRequest:
        """Count a request as demand, and hold it until the version changes, for at most its `wait` seconds."""
        query = request.query
        wait, version = _wait(query.get("wait")), query.get("version")
        lease_request = _LeaseRequest(arrived, _client(request.headers), _token(query.get("token")))
        if version is not None and not _VERSION.fullmatch(version):
            raise _refusal(web.HTTPBadRequest, f"version: {version[:80]!r} is not the version of an answer")
        for name in names:
            self._candidate.asked(name)
        await self._candidate.first_replies(names, self._timings.call_limit)
        if wait and version == self._version(names):
            await self._candidate.hold(
                names, self._candidate.version(names), wait, lease_request.client, lease_request.token
            )
        return lease_request

    def _version(self, names: tuple[str, ...]) -> str:
        return f"{self._boot}-{self._candidate.version(names)}"

    def _answers(self, names: tuple[str, ...], lease_request: _LeaseRequest) -> dict[str, Any]:
        leads_all, version = True, 0
        leases: dict[str, Any] = {}
        for name in names:
            grant, view = self._candidate.granted(name, *lease_request)
            leads_all = leads_all and grant is not None
            version += view.version
            leases[name] = self._fields(name, grant, view)
        return {
            "instance_id": self._instance_id,
            "is_leader": leads_all,
            "version": f"{self._boot}-{version}",
            "leases": leases,
        }

    def _answer(self, name: str, lease_request: _LeaseRequest) -> dict[str, Any]:
        return self._fields(name, *self._candidate.granted(name, *lease_request))

    def _fields(self, name: str, grant: float | None, view: View) -> dict[str, Any]:
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


def metrics_app(registry: CollectorRegistry, healthz: Handler, leader: Handler) -> web.Application:
    """The metrics listener's application; no request changes anything."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application(client_max_size=1024)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/leader/{lease}", leader)
    return app


def _wait(text: str | None) -> float:
    if text is None:
        return 0.0
    try:
        wait = float(text) if _NUMBER.fullmatch(text) else math.nan  # float also takes 1_0 and '\u06f1'
    except ValueError:
        wait = math.nan
    if not 0 < wait <= LONGEST_WAIT:
        error = f"wait: {text[:80]!r} is not a number of seconds above 0 and at most {LONGEST_WAIT:g}"
        raise _refusal(web.HTTPBadRequest, error)
    return wait


def _client(headers: Mapping[str, str]) -> str:
    """The whole name of the client: processes whose names differ only at the end are different clients."""
    return headers.get(CLIENT, "")


def _token(text: str | None) -> int | None:
    """The token in the query, which names the client's last term, or the term that the client resigns."""
    if text is not None and not _TOKEN.fullmatch(text):
        raise _refusal(web.HTTPBadRequest, f"token: {text[:80]!r} is not the token of an answer")
    return int(text) if text is not None else None


@web.middleware
async def _refuse_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse requests of web pages in a browser on this machine.

    A request to `/is-leader` or a resign changes the election, and a web page must not do that.
    """
    if error := refusal(request):
        raise _refusal(web.HTTPForbidden, error)
    return await handler(request)


def _json(content: dict[str, Any], *, status: int = 200) -> web.Response:
    return web.Response(body=_to_json(content).encode(), status=status, content_type="application/json")


def _refusal(kind: type[web.HTTPError], error: str, **more: object) -> web.HTTPError:
    return kind(text=json.dumps({"error": error, **more}), content_type="application/json")
