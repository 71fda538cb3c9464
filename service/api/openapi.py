"""The OpenAPI 3.1 description of the public listener.

The schemas of responses come from `service.api.responses`, and the limits and patterns from the code that applies them.
"""

from runtime.version import __version__
from service.api import responses
from service.api.limits import ANSWER_LIMIT, BODY_LIMIT, MAX_BODY, MAX_ROWS, MAX_STREAMS, MAX_WAITING_WRITES
from service.api.position_body import FIELDS, MAX_ENTRIES
from service.api.response_types import schemas_of
from service.api.schemas import (
    DAY,
    TEXT,
    UUID,
    Json,
    error_response,
    integer,
    json_of,
    list_of,
    object_of,
    operation,
    parameter,
    ref,
    text_of,
)
from service.database import position_writes

EXAMPLE_PORTFOLIO = "11111111-1111-4111-8111-111111111111"
"""The id of a sample portfolio."""
ABOUT = f"""\
Money, quantities and fractions are decimals in strings, never binary floats; money is in dollars. Instants are ISO 8601
in UTC; dates are the exchange's.

Errors are JSON with an `error` for people to read. In addition to the errors of each path, an unknown path is 404, an
unknown method is 405 with `Allow`, and an `Expect` other than 100-continue is 417. Every path that answers GET answers
HEAD, except streams. A path with query parameters answers an unknown or repeated parameter with 400; the other paths
ignore parameters. A portfolio of another user is 404, like one that does not exist. An answer takes at most
{ANSWER_LIMIT:g} s, except streams.

A web page may use these paths if CORS_ORIGINS names its origin. The page sends its access token in `Authorization`.
"""

ERRORS = {
    400: "The request is invalid; `field` names the invalid part.",
    401: "No valid access token of a signed-in user.",
    404: "The caller has no such portfolio, or it has no value yet.",
    408: f"The body did not arrive within {BODY_LIMIT:g} s.",
    409: f"The portfolio would have more than {position_writes.MAX_OPEN_POSITIONS} open positions, "
    f"or {position_writes.MAX_ENTRIES} entries.",
    413: f"The body is larger than {MAX_BODY} bytes.",
    415: "The body is not application/json.",
    429: f"The user already has {MAX_STREAMS} open streams, or {MAX_WAITING_WRITES} writes under way, on this task.",
    500: "A bug; the log has the traceback.",
    503: "The database or the keys of the access tokens are unavailable, the answer took too long, "
    "another writer has locked the positions, "
    "or the task has too little memory or too few connections for another stream.",
}
"""The meaning of each error status, for all paths."""


def description() -> Json:
    """The description of all public routes."""
    return {
        "openapi": "3.1.1",
        "info": {"title": "Portfolio service", "version": __version__, "description": ABOUT},
        "paths": {
            "/portfolios/{id}/live": {
                "parameters": [ref("parameters", "id")],
                "get": _owners("The latest value", json_of("LiveValue"), 400, 401, 404),
            },
            "/portfolios/{id}/history": {
                "parameters": [
                    ref("parameters", "id"),
                    parameter("query", "from", DAY, description="The first day, not later than `to`."),
                    parameter("query", "to", DAY, description="The last day, inclusive."),
                    parameter("query", "limit", integer(1, MAX_ROWS) | {"default": MAX_ROWS}),
                ],
                "get": _owners(
                    "The newest `limit` values at the end of sessions, ordered by date",
                    json_of("History"),
                    *(400, 401, 404),
                ),
            },
            "/portfolios/{id}/stream": {
                "parameters": [ref("parameters", "id")],
                "get": _owners(
                    "Server-sent events: the current value, then each new value. The stream ends when the access token "
                    "expires or the portfolio is no longer the caller's. Its `retry` is a random 1 to 10 s: after the "
                    "end, wait for that time before connecting again. "
                    "A slow client misses values; comments keep an idle stream open",
                    # The schema of each event. OpenAPI 3.1 has no `itemSchema` for streams; 3.2 has it.
                    {"text/event-stream": {"schema": ref("schemas", "LiveEvent")}},
                    *(400, 401, 404, 429),
                ),
            },
            "/portfolios/{id}/positions": {
                "parameters": [ref("parameters", "id")],
                "put": {
                    "requestBody": {
                        "description": f"At most {MAX_BODY} bytes, within {BODY_LIMIT:g} s.",
                        "required": True,
                        "content": json_of("Positions"),
                    },
                    **_owners(
                        "Add or change some of the positions. Either every entry of the request is written, or none",
                        json_of("Written"),
                        *(400, 401, 404, 408, 409, 413, 415, 429),
                    ),
                },
            },
            "/healthz": {
                "get": operation(
                    "Whether this task serves; 503 while the task stops", json_of("Health"), stopping=True
                ),
            },
            "/openapi.json": {
                "get": operation("This description", {"application/json": {"schema": {"type": "object"}}})
            },
        },
        "components": {
            "parameters": {"id": parameter("path", "id", UUID, example=EXAMPLE_PORTFOLIO)},
            "schemas": _schemas(),
            "responses": {str(status): error_response(status, meaning) for status, meaning in ERRORS.items()},
            "securitySchemes": {
                "supabase": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "An access token of the Supabase project. With AUTH=off no token is needed.",
                },
            },
        },
    }


def _schemas() -> Json:
    return {
        **schemas_of(
            responses.LiveValue,
            responses.History,
            responses.Written,
            responses.Health,
            responses.Error,
            responses.FieldErrors,
        ),
        "LiveEvent": object_of(
            event={"const": "message", "description": "The default type of an event; no `event` line is sent."},
            id=text_of(r"[0-9]+-[0-9]+\.[0-9]{6}") | {"description": "The server ignores this id in Last-Event-ID."},
            data=TEXT | {"contentMediaType": "application/json", "contentSchema": ref("schemas", "LiveValue")},
        ),
        "Positions": list_of(ref("schemas", "Position"), 1, MAX_ENTRIES)
        | {
            "description": "No two entries have the same symbol and date.",
            "examples": [[{"symbol": "KO", "quantity": "2.5", "valid_from": "2026-02-13"}]],
        },
        "Position": object_of(**{name: field.schema for name, field in FIELDS.items()}),
    }


def _owners(summary: str, content: Json, *errors: int) -> Json:
    """An operation that is only for the portfolio's owner."""
    return {**operation(summary, content, *errors), "security": [{"supabase": []}]}
