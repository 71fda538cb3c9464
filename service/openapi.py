"""The API in the words of OpenAPI 3.1, as GET /openapi.json tells it: the paths first, then what they are made of.

Limits, patterns and words are the constants that the code itself goes by. Tests hold the paths against the
application's routes, and each answer of a running service against its schema here; an object's fields are all of them,
and all are always there, unless it says otherwise.
"""

from datetime import date
from typing import Any, get_args

from service.background import SCHEDULER_LEASE, TRACKER_LEASE
from service.entries import MOST_ENTRIES, MOST_ERRORS, QUANTITY
from service.jobs import KIND
from service.limits import ANSWER_LIMIT, BODY_LIMIT, LARGEST_BODY, MOST_ROWS, MOST_STREAMS
from service.notation import EARLIEST, ID, LATEST, MOST_QUANTITY, SMALLEST_QUANTITY, SYMBOL
from service.records import Origin, RunStatus
from service.samples import SAMPLES
from service.store import MOST_ENTRIES_IN_ALL, MOST_OPEN_POSITIONS
from service.timetable import JOBS

MOST_UNPRICED = 20
"""Symbols without a price that a live value names, as in the database's `unpriced_symbols`."""
VERSION = "0.1.0"

Json = dict[str, Any]

ABOUT = f"""\
Money, quantities and fractions are decimals in strings, never binary floats; money is in dollars. Instants are ISO 8601
in UTC; dates are the exchange's.

Errors are JSON with an `error` for people to read. Besides those of each path, a path that is not there is 404, and a
method that a path has not is 405 with `Allow`; an `Expect` of anything but 100-continue is 417. Whatever answers GET
answers HEAD too, streams apart. Parameters of a query that have no name here are 400 where there are others that have
one, and ignored elsewhere. A portfolio that is not the caller's own is 404, as if it were not there. No answer takes
longer than {ANSWER_LIMIT:g} s, streams apart.
"""

TEXT: Json = {"type": "string"}
UUID: Json = {"type": "string", "format": "uuid", "pattern": f"^{ID.pattern}$"}
DAY: Json = {"type": "string", "format": "date"}
INSTANT: Json = {"type": "string", "format": "date-time", "pattern": "Z$"}
MONEY: Json = {"type": "string", "format": "decimal", "pattern": r"^-?[0-9]+\.[0-9]{4}$"}
FRACTION: Json = {"type": "string", "format": "decimal", "pattern": r"^(0\.[0-9]{4}|1\.0000)$"}
TOKEN: Json = {"type": "integer", "minimum": 0, "description": "A term's fencing token."}

ERRORS = {
    400: "Something in the request cannot be used; `field` says what.",
    401: "No valid access token.",
    404: "No such portfolio of the caller's; or it has no value yet.",
    406: "There is no such version of the format that is asked for.",
    408: f"The body did not come in {BODY_LIMIT:g} s.",
    409: f"The portfolio would have more than {MOST_OPEN_POSITIONS} open positions, or {MOST_ENTRIES_IN_ALL} entries.",
    413: f"The body is larger than {LARGEST_BODY} bytes.",
    415: "The body is not application/json.",
    429: f"The user has {MOST_STREAMS} streams open on this task already.",
    500: "A bug. What it is stands in the log.",
    503: "The database or the keys of the access tokens cannot be had, or the answer took too long.",
}
"""What each error's status means, wherever it is answered."""


def description() -> Json:
    """The whole description."""
    return {
        "openapi": "3.1.1",
        "info": {"title": "Portfolio service", "version": VERSION, "description": ABOUT},
        "paths": {
            "/portfolios/{id}/live": {
                "parameters": [_ref("parameters", "id")],
                "get": _owners("The latest value", _json("LiveValue"), 400, 401, 404),
            },
            "/portfolios/{id}/history": {
                "parameters": [
                    _ref("parameters", "id"),
                    _parameter("query", "from", DAY, description="The first day; not later than `to`."),
                    _parameter("query", "to", DAY, description="The last day, included."),
                    _parameter("query", "limit", _integer(1, MOST_ROWS) | {"default": MOST_ROWS}),
                ],
                "get": _owners(
                    "The newest values at the end of days, oldest first; a parameter that is not one of these, or is "
                    "there twice, is 400",
                    _json("History"),
                    *(400, 401, 404),
                ),
            },
            "/portfolios/{id}/stream": {
                "parameters": [_ref("parameters", "id")],
                "get": _owners(
                    "Server-sent events: the value now, then each new one, until the access token has expired. "
                    "Who is slow misses values; comments keep a silent stream open",
                    # Of each event. 3.1 does not say of what a stream's schema is; 3.2 has `itemSchema` for this.
                    {"text/event-stream": {"schema": _ref("schemas", "LiveEvent")}},
                    *(400, 401, 404, 429),
                ),
            },
            "/portfolios/{id}/positions": {
                "parameters": [_ref("parameters", "id")],
                "put": {
                    "requestBody": {
                        "description": f"At most {LARGEST_BODY} bytes, within {BODY_LIMIT:g} s.",
                        "required": True,
                        "content": _json("Positions"),
                    },
                    **_owners(
                        "Add or change some of the positions; the others stay. All are written, or none",
                        _json("Written"),
                        *(400, 401, 404, 408, 409, 413, 415),
                    ),
                },
            },
            "/background/status": {
                "get": _operation("Who leads what; each job's last and next run", _json("BackgroundStatus")),
            },
            "/healthz": {
                "get": _operation("Whether this task serves; 503 while it stops", _json("Health"), stopping=True),
            },
            "/metrics": {
                "get": _operation(
                    "For Prometheus",
                    {"text/plain": {"schema": TEXT}, "application/openmetrics-text": {"schema": TEXT}},
                    406,
                ),
            },
            "/openapi.json": {
                "get": _operation("This description", {"application/json": {"schema": {"type": "object"}}})
            },
        },
        "components": {
            "parameters": {"id": _parameter("path", "id", UUID, example=str(next(iter(SAMPLES))))},
            "schemas": _schemas(),
            "responses": {str(status): _error(status) for status in ERRORS},
            "securitySchemes": {
                "supabase": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "An access token of the Supabase project. With AUTH=off none is needed.",
                },
            },
        },
    }


def _schemas() -> Json:
    lease = _object(
        is_leader={"type": "boolean", "description": "Whether this task's process leads."},
        state=TEXT | {"description": "Where the lease stands, as the sidecar says; `unknown` until it has said."},
        holder=_or_null(TEXT),
        token=_or_null(TOKEN),
        remaining={"type": "number", "minimum": 0, "description": "Seconds that this process may still believe it."},
        last_writer=_or_null(_object(holder=TEXT, token=TOKEN, since=INSTANT)),
    )
    tracker = _object(
        lease={"const": TRACKER_LEASE},
        last_run=_or_null(INSTANT),
        next_run=_or_null(INSTANT),
        loading=_or_null(_object(portfolios_done=_integer(0), portfolios=_integer(0))),
    )
    job = _object(lease={"const": SCHEDULER_LEASE}, last_run=_or_null(_ref("schemas", "JobRun")), next_run=INSTANT)
    return {
        "LiveValue": _object(
            portfolio_id=UUID,
            session_date=DAY,
            as_of=INSTANT,
            value=_or_null(MONEY) | {"description": "null: none of the positions has a price."},
            day_open=_or_null(MONEY) | {"description": "Today's positions at the session's first prices."},
            day_high=_or_null(MONEY),
            day_low=_or_null(MONEY),
            day_change=_or_null(MONEY) | {"description": "`value` less `day_open`: a deposit is no gain."},
            priced_fraction=FRACTION,
            unpriced_symbols=_list(TEXT, 0, MOST_UNPRICED)
            | {"description": f"The symbols held that have no price; the first {MOST_UNPRICED}."},
            unpriced_count=_integer(0) | {"description": "The number of all symbols held that have no price."},
            stale={"type": "boolean", "description": "Some price was carried forward, or is old."},
            oldest_price_at=_or_null(INSTANT),
            token=TOKEN,
        ),
        "LiveEvent": _object(
            event={"const": "message", "description": "What an event is that does not say."},
            id=_text(r"[0-9]+-[0-9]+\.[0-9]{6}") | {"description": "Sent back as Last-Event-ID it changes nothing."},
            data=TEXT | {"contentMediaType": "application/json", "contentSchema": _ref("schemas", "LiveValue")},
        ),
        "History": _object(portfolio_id=UUID, history=_list(_ref("schemas", "HistoryRow"), 0, MOST_ROWS)),
        "HistoryRow": _object(
            date=DAY,
            kind={"const": KIND},
            value=MONEY,
            priced_fraction=FRACTION,
            stale={"type": "boolean"},
            origin={"enum": list(get_args(Origin))},
            revision=_integer(1),
            written_at=INSTANT,
            token=TOKEN,
        ),
        "Positions": _list(_ref("schemas", "Position"), 1, MOST_ENTRIES)
        | {
            "description": "No two of one symbol and date.",
            "examples": [[{"symbol": "KO", "quantity": "2.5", "valid_from": "2026-02-13"}]],
        },
        "Position": _object(
            symbol=_text(SYMBOL.pattern),
            quantity={
                "description": f"Under {MOST_QUANTITY:f}, in steps of {SMALLEST_QUANTITY:f}; 0 closes.",
                "anyOf": [
                    _text(QUANTITY.pattern) | {"format": "decimal"},
                    {"type": "number", "minimum": 0, "exclusiveMaximum": int(MOST_QUANTITY)},
                ],
            },
            valid_from=DAY | {"pattern": _days(EARLIEST, LATEST), "description": f"From {EARLIEST} to {LATEST}."},
        ),
        "Written": _object(
            portfolio_id=UUID,
            written=_integer(1, MOST_ENTRIES),
            positions=_integer(1) | {"description": "Its entries now, past ones included."},
        ),
        "BackgroundStatus": _object(
            instance_id=_or_null(TEXT),
            leases=_object(**{TRACKER_LEASE: lease, SCHEDULER_LEASE: lease}),
            jobs=_object(tracker=tracker, **dict.fromkeys(JOBS, job)),
            database=TEXT | {"description": "`ok`, or what is wrong; the jobs' last runs are null then."},
        ),
        "JobRun": _object(
            session_date=DAY,
            status={"enum": list(get_args(RunStatus))},
            rows_written=_integer(0),
            rows_added=_integer(0),
            rows_changed=_integer(0),
            attempts=_integer(1),
            error=_or_null(TEXT) | {"description": "Why the last attempt failed."},
            holder=TEXT,
            token=TOKEN,
            started_at=INSTANT,
            updated_at=INSTANT,
            finished_at=_or_null(INSTANT),
        ),
        "Health": _object(
            status={"enum": ["ok", "draining"]},
            database=TEXT | {"description": "`ok`, or what is wrong."},
            sidecar=TEXT | {"description": "`ok`, or what is wrong."},
        ),
        "Error": _object(error=TEXT),
        "FieldError": _object(error=TEXT, field=TEXT),
        "FieldErrors": _object(error=TEXT, field=TEXT, errors=_list(_ref("schemas", "FieldError"), 1, MOST_ERRORS)),
    }


def _operation(summary: str, content: Json, *errors: int, stopping: bool = False) -> Json:
    """What answers 200 with that content, or one of the errors, or what anything may fail with.

    With `stopping` the content is that of 503 as well.
    """
    answers = {str(status): _ref("responses", str(status)) for status in (*errors, 500, 503)}
    if stopping:
        schema = {"anyOf": [content["application/json"]["schema"], _ref("schemas", "Error")]}
        answers["503"] = {"description": "It stops.", "content": {"application/json": {"schema": schema}}}
    return {"summary": summary, "responses": {"200": {"description": "As asked.", "content": content}, **answers}}


def _owners(summary: str, content: Json, *errors: int) -> Json:
    """What only the portfolio's owner may do."""
    return {**_operation(summary, content, *errors), "security": [{"supabase": []}]}


def _error(status: int) -> Json:
    schema = {"anyOf": [_ref("schemas", "FieldError"), _ref("schemas", "FieldErrors")]}
    answer: Json = {"description": ERRORS[status], "content": _json("Error")}
    match status:
        case 400:
            answer["content"] = {"application/json": {"schema": schema}}
        case 401:
            answer["headers"] = {"WWW-Authenticate": {"required": True, "schema": _text("Bearer.*")}}
        case 503:
            answer["headers"] = {"Retry-After": {"required": True, "schema": _integer(0), "description": "Seconds."}}
    return answer


def _parameter(place: str, name: str, schema: Json, **more: str) -> Json:
    return {"in": place, "name": name, "required": place == "path", "schema": schema, **more}


def _json(schema: str) -> Json:
    return {"application/json": {"schema": _ref("schemas", schema)}}


def _ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def _object(**fields: Json) -> Json:
    """An object that has all of these fields, and no others."""
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def _list(items: Json, least: int, most: int) -> Json:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def _integer(least: int, most: int | None = None) -> Json:
    return {"type": "integer", "minimum": least} | ({} if most is None else {"maximum": most})


def _text(pattern: str) -> Json:
    """A string that matches from end to end."""
    return {"type": "string", "pattern": f"^{pattern}$"}


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _days(first: date, last: date) -> str:
    """A pattern of the dates between two, which begin and end a decade: JSON Schema has no other bounds for dates."""
    decades = "|".join(str(decade) for decade in range(first.year // 10, last.year // 10 + 1))
    return f"^({decades})[0-9]-[0-9]{{2}}-[0-9]{{2}}$"
