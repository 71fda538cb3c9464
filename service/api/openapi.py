"""The public routes as an OpenAPI 3.1 description: the paths first, then what they are made of.

Limits, patterns and words are the constants that the code itself goes by. Tests hold the paths against the
application's routes, and each answer of a running service against its schema here; an object's fields are all of them,
and all are always there, unless it says otherwise.
"""

from typing import get_args

from runtime.version import __version__
from service.api.limits import ANSWER_LIMIT, BODY_LIMIT, LARGEST_BODY, MOST_ROWS, MOST_STREAMS
from service.api.position_body import MOST_ENTRIES, MOST_ERRORS, QUANTITY
from service.api.schemas import (
    DAY,
    FRACTION,
    INSTANT,
    MONEY,
    TEXT,
    TOKEN,
    UUID,
    Json,
    days_between,
    error_response,
    integer,
    json_of,
    list_of,
    object_of,
    operation,
    or_null,
    parameter,
    ref,
    text_of,
)
from service.database.position_writes import MOST_ENTRIES_IN_ALL, MOST_OPEN_POSITIONS
from service.portfolio.formats import EARLIEST, LATEST, MOST_QUANTITY, SMALLEST_QUANTITY, SYMBOL
from service.portfolio.records import Origin
from service.work.jobs import KIND

EXAMPLE_PORTFOLIO = "11111111-1111-4111-8111-111111111111"
"""A sample portfolio's id."""
MOST_UNPRICED = 20
"""Symbols without a price that a live value names, as in the database's `unpriced_symbols`."""

ABOUT = f"""\
Money, quantities and fractions are decimals in strings, never binary floats; money is in dollars. Instants are ISO 8601
in UTC; dates are the exchange's.

Errors are JSON with an `error` for people to read. Besides those of each path, a path that is not there is 404, and a
method that a path has not is 405 with `Allow`; an `Expect` of anything but 100-continue is 417. Whatever answers GET
answers HEAD too, streams apart. Parameters of a query that have no name here are 400 where there are others that have
one, and ignored elsewhere. A portfolio that is not the caller's own is 404, as if it were not there. No answer takes
longer than {ANSWER_LIMIT:g} s, streams apart.
"""

ERRORS = {
    400: "Something in the request cannot be used; `field` says what.",
    401: "No valid access token of a signed-in user.",
    404: "No such portfolio of the caller's; or it has no value yet.",
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
        "info": {"title": "Portfolio service", "version": __version__, "description": ABOUT},
        "paths": {
            "/portfolios/{id}/live": {
                "parameters": [ref("parameters", "id")],
                "get": _owners("The latest value", json_of("LiveValue"), 400, 401, 404),
            },
            "/portfolios/{id}/history": {
                "parameters": [
                    ref("parameters", "id"),
                    parameter("query", "from", DAY, description="The first day; not later than `to`."),
                    parameter("query", "to", DAY, description="The last day, included."),
                    parameter("query", "limit", integer(1, MOST_ROWS) | {"default": MOST_ROWS}),
                ],
                "get": _owners(
                    "The newest values at the end of days, oldest first; a parameter that is not one of these, or is "
                    "there twice, is 400",
                    json_of("History"),
                    *(400, 401, 404),
                ),
            },
            "/portfolios/{id}/stream": {
                "parameters": [ref("parameters", "id")],
                "get": _owners(
                    "Server-sent events: the value now, then each new one, until the access token has expired or the "
                    "portfolio is not the caller's any more. "
                    "Who is slow misses values; comments keep a silent stream open",
                    # Of each event. 3.1 does not say of what a stream's schema is; 3.2 has `itemSchema` for this.
                    {"text/event-stream": {"schema": ref("schemas", "LiveEvent")}},
                    *(400, 401, 404, 429),
                ),
            },
            "/portfolios/{id}/positions": {
                "parameters": [ref("parameters", "id")],
                "put": {
                    "requestBody": {
                        "description": f"At most {LARGEST_BODY} bytes, within {BODY_LIMIT:g} s.",
                        "required": True,
                        "content": json_of("Positions"),
                    },
                    **_owners(
                        "Add or change some of the positions; the others stay. All are written, or none",
                        json_of("Written"),
                        *(400, 401, 404, 408, 409, 413, 415),
                    ),
                },
            },
            "/healthz": {
                "get": operation("Whether this task serves; 503 while it stops", json_of("Health"), stopping=True),
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
                    "description": "An access token of the Supabase project. With AUTH=off none is needed.",
                },
            },
        },
    }


def _schemas() -> Json:
    return {
        "LiveValue": object_of(
            portfolio_id=UUID,
            session_date=DAY,
            as_of=INSTANT,
            value=or_null(MONEY) | {"description": "null: none of the positions has a price."},
            day_open=or_null(MONEY) | {"description": "Today's positions at the session's first prices."},
            day_high=or_null(MONEY),
            day_low=or_null(MONEY),
            day_change=or_null(MONEY) | {"description": "`value` less `day_open`: a deposit is no gain."},
            priced_fraction=FRACTION,
            unpriced_symbols=list_of(TEXT, 0, MOST_UNPRICED)
            | {"description": f"The symbols held that have no price; the first {MOST_UNPRICED}."},
            unpriced_count=integer(0) | {"description": "The number of all symbols held that have no price."},
            stale={"type": "boolean", "description": "Some price was carried forward, or is old."},
            oldest_price_at=or_null(INSTANT),
            token=TOKEN,
        ),
        "LiveEvent": object_of(
            event={"const": "message", "description": "What an event is that does not say."},
            id=text_of(r"[0-9]+-[0-9]+\.[0-9]{6}") | {"description": "Sent back as Last-Event-ID it changes nothing."},
            data=TEXT | {"contentMediaType": "application/json", "contentSchema": ref("schemas", "LiveValue")},
        ),
        "History": object_of(portfolio_id=UUID, history=list_of(ref("schemas", "HistoryRow"), 0, MOST_ROWS)),
        "HistoryRow": object_of(
            date=DAY,
            kind={"const": KIND},
            value=MONEY,
            priced_fraction=FRACTION,
            stale={"type": "boolean"},
            origin={"enum": list(get_args(Origin))},
            revision=integer(1),
            written_at=INSTANT,
            token=TOKEN,
        ),
        "Positions": list_of(ref("schemas", "Position"), 1, MOST_ENTRIES)
        | {
            "description": "No two of one symbol and date.",
            "examples": [[{"symbol": "KO", "quantity": "2.5", "valid_from": "2026-02-13"}]],
        },
        "Position": object_of(
            symbol=text_of(SYMBOL.pattern),
            quantity={
                "description": f"Under {MOST_QUANTITY:f}, in steps of {SMALLEST_QUANTITY:f}; 0 closes.",
                "anyOf": [
                    text_of(QUANTITY.pattern) | {"format": "decimal"},
                    {"type": "number", "minimum": 0, "exclusiveMaximum": int(MOST_QUANTITY)},
                ],
            },
            valid_from=DAY | {"pattern": days_between(EARLIEST, LATEST), "description": f"{EARLIEST} to {LATEST}."},
        ),
        "Written": object_of(
            portfolio_id=UUID,
            written=integer(1, MOST_ENTRIES),
            positions=integer(1) | {"description": "Its entries now, past ones included."},
        ),
        "Health": object_of(status={"enum": ["ok", "draining"]}),
        "Error": object_of(error=TEXT),
        "FieldError": object_of(error=TEXT, field=TEXT),
        "FieldErrors": object_of(error=TEXT, field=TEXT, errors=list_of(ref("schemas", "FieldError"), 1, MOST_ERRORS)),
    }


def _owners(summary: str, content: Json, *errors: int) -> Json:
    """What only the portfolio's owner may do."""
    return {**operation(summary, content, *errors), "security": [{"supabase": []}]}
