"""The description of the control listener in OpenAPI 3.1, served at `/openapi.json`; see docs/http-contract.md."""

from collections.abc import Sequence
from typing import Any

from sidecar.history import MOST_TERMS, End
from sidecar.protocol import State

JSON = dict[str, Any]

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}, "leases": {"type": "array", "items": {"type": "string"}}},
}
_TOKEN = {"type": ["integer", "null"], "minimum": 1, "maximum": 2**53, "description": "The fencing token of the term."}
_VERSION = {"type": "string", "pattern": "^[0-9a-f]+-[0-9]+$", "description": "Opaque: compare it for equality only."}
_STATE = {"type": "string", "enum": [str(state) for state in State]}
_HOLDER = {"type": ["string", "null"], "description": "An instance id, or an operator's word such as DISABLED."}
_FOLLOWS = {"properties": {"is_leader": {"const": False}, "token": {"type": "null"}, "expires_in": {"type": "null"}}}
_LEADS = {
    "properties": {
        "is_leader": {"const": True},
        "token": {"type": "integer"},
        "expires_in": {"type": "number"},
        "holder": {"type": "string"},
    }
}
_ANSWER = {
    "type": "object",
    "required": ["lease", "is_leader", "instance_id", "holder", "token", "expires_in", "state", "version"],
    "properties": {
        "lease": {"type": "string"},
        "is_leader": {"type": "boolean"},
        "instance_id": {"type": "string", "minLength": 1},
        "holder": _HOLDER,
        "token": _TOKEN,
        "expires_in": {
            "type": ["number", "null"],
            "exclusiveMinimum": 0,
            "maximum": 60,
            "description": "Seconds for which the client may act, counted from the moment it sent the request.",
        },
        "state": _STATE,
        "version": _VERSION,
    },
    "oneOf": [_LEADS, _FOLLOWS],
}
_ANSWERS = {
    "type": "object",
    "required": ["instance_id", "is_leader", "version", "leases"],
    "properties": {
        "instance_id": {"type": "string", "minLength": 1},
        "is_leader": {"type": "boolean", "description": "True if this task leads every lease."},
        "version": _VERSION,
        "leases": {"type": "object", "additionalProperties": _ANSWER},
    },
}
_LOOK = {
    "type": "object",
    "required": ["lease", "is_leader"],
    "properties": {"lease": {"type": "string"}, "is_leader": {"type": "boolean"}},
}
_RESIGNED = {
    "type": "object",
    "required": ["lease", "resigned"],
    "properties": {
        "lease": {"type": "string"},
        "resigned": {"type": "boolean", "description": "False if that term is over, or another client may act."},
    },
}
_STATUS = {
    "type": "object",
    "required": ["instance_id", "leases"],
    "properties": {
        "instance_id": {"type": "string", "minLength": 1},
        "leases": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": [
                    "state",
                    "is_leader",
                    "holder",
                    "token",
                    "remaining",
                    "holder_remaining",
                    "trouble",
                    "step_down",
                ],
                "properties": {
                    "state": _STATE,
                    "is_leader": {"type": "boolean"},
                    "holder": _HOLDER,
                    "token": _TOKEN,
                    "remaining": {"type": "number", "minimum": 0},
                    "holder_remaining": {
                        "type": ["number", "null"],
                        "minimum": 0,
                        "description": "Seconds until the holder's key expires; null without a holder or a time limit",
                    },
                    "trouble": {"type": ["string", "null"]},
                    "step_down": {"type": ["string", "null"]},
                },
            },
        },
    },
}
_TERM = {
    "type": "object",
    "required": ["token", "holder", "acquired_at", "released_at", "end", "reason"],
    "properties": {
        "token": {"type": "integer", "minimum": 0},
        "holder": {"type": "string", "minLength": 1},
        "acquired_at": {"type": "string", "format": "date-time", "description": "In the time of the Redis server."},
        "released_at": {"type": ["string", "null"], "format": "date-time"},
        "end": {
            "enum": [str(end) for end in End],
            "description": "`not released`: the holder crashed, or its key expired, was deleted or was overwritten.",
        },
        "reason": {"type": ["string", "null"], "description": "Why the holder gave the term up."},
    },
}
_HISTORY = {
    "type": "object",
    "required": ["lease", "terms"],
    "properties": {
        "lease": {"type": "string"},
        "terms": {"type": "array", "items": _TERM, "maxItems": MOST_TERMS, "description": "The newest term first."},
    },
}
_HEALTH = {"type": "object", "required": ["status"], "properties": {"status": {"enum": ["ok", "stuck"]}}}


def description(leases: Sequence[str], longest_wait: float) -> JSON:
    """The document for a sidecar that has these leases and holds a request for at most `longest_wait` seconds."""
    lease = _parameter("lease", "path", {"type": "string", "enum": list(leases)}, required=True)
    token = _parameter("token", "query", {"type": "string", "pattern": "^[0-9]{1,16}$"})
    wait = _parameter("wait", "query", {"type": "number", "exclusiveMinimum": 0, "maximum": longest_wait})
    version = _parameter("version", "query", {"type": "string", "pattern": "^[0-9a-f]+-[0-9]+$"})
    name = {
        "type": "string",
        "description": "The client's name, compared in full; only one named client of a task leads at a time",
    }
    client = _parameter("X-Lease-Client", "header", {**name, "minLength": 1})
    asked = [wait, version, token, _parameter("X-Lease-Client", "header", name)]
    return {
        "openapi": "3.1.0",
        "info": {"title": "Control listener of the lease sidecar", "version": "1"},
        "paths": {
            "/is-leader": {
                "get": _operation(
                    "isLeaderOfAll",
                    "Whether this task leads all leases; the request campaigns for them",
                    asked,
                    _ANSWERS,
                )
            },
            "/is-leader/{lease}": {
                "get": _operation(
                    "isLeader",
                    "Whether this task leads the lease; the request campaigns for it",
                    [lease, *asked],
                    _ANSWER,
                )
            },
            "/leader/{lease}": {
                method: _operation(
                    f"{method}Leader",
                    "200 if this task leads, else 503; the request does not campaign",
                    [lease],
                    _LOOK,
                    unavailable=_LOOK,
                )
                for method in ("get", "head")
            },
            "/resign/{lease}": {
                "post": _operation(
                    "resign",
                    "Report that the client's work has stopped; with a token, only the work of that term",
                    [lease, token, {**client, "required": True}],
                    _RESIGNED,
                )
            },
            "/status": {
                "get": _operation("status", "All leases, for people; the request does not campaign", [], _STATUS)
            },
            "/history/{lease}": {
                "get": _operation(
                    "history",
                    "The last terms of the lease in all tasks, read from Redis at most once a second; no campaign",
                    [lease],
                    _HISTORY,
                    unavailable=_ERROR,
                )
            },
            "/healthz": {
                "get": _operation("health", "200 while the election loop runs", [], _HEALTH, unavailable=_HEALTH)
            },
            "/openapi.json": {"get": _operation("description", "This document", [], {"type": "object"})},
        },
    }


def _parameter(name: str, where: str, schema: JSON, *, required: bool = False) -> JSON:
    return {"name": name, "in": where, "required": required, "schema": schema}


def _operation(
    name: str, summary: str, parameters: list[JSON], answer: JSON, *, unavailable: JSON | None = None
) -> JSON:
    responses = {
        "200": _response("Done", answer),
        "400": _response("wait, version or token is invalid, or the HTTP is malformed", _ERROR),
        "403": _response("Host is not loopback, a web page sent the request, or X-Lease-Client is missing", _ERROR),
        "404": _response("There is no such lease; `leases` has the names", _ERROR),
    }
    if unavailable is not None:
        responses["503"] = _response("Not leading, not healthy, or Redis does not answer", unavailable)
    return {"operationId": name, "summary": summary, "parameters": parameters, "responses": responses}


def _response(text: str, schema: JSON) -> JSON:
    return {"description": text, "content": {"application/json": {"schema": schema}}}
