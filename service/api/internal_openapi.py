"""The internal listener's routes as an OpenAPI 3.1 description."""

from typing import get_args

from runtime.version import __version__
from service.api.schemas import (
    DAY,
    INSTANT,
    TEXT,
    TOKEN,
    Json,
    error_response,
    integer,
    json_of,
    object_of,
    operation,
    or_null,
    ref,
)
from service.portfolio.records import RunStatus
from service.work.background import SCHEDULER_LEASE, TRACKER_LEASE
from service.work.timetable import JOBS

ABOUT = """\
For operators, scripts and Prometheus inside the network; nothing here changes anything. Instants are ISO 8601 in UTC.
Errors are JSON with an `error` for people to read.
"""

NOT_ACCEPTABLE = "The metrics do not exist in the version of the format that Accept asks for."


def internal_description() -> Json:
    """The whole description."""
    return {
        "openapi": "3.1.1",
        "info": {"title": "Portfolio service, internal listener", "version": __version__, "description": ABOUT},
        "paths": {
            "/background/status": {
                "get": operation("Who leads what; each job's last and next run", json_of("BackgroundStatus")),
            },
            "/healthz": {
                "get": operation(
                    "Whether this task serves, and the state of its neighbours; 503 while it stops",
                    json_of("Health"),
                    stopping=True,
                ),
            },
            "/metrics": {
                "get": operation(
                    "For Prometheus",
                    {"text/plain": {"schema": TEXT}, "application/openmetrics-text": {"schema": TEXT}},
                    406,
                ),
            },
            "/openapi.json": {
                "get": operation("This description", {"application/json": {"schema": {"type": "object"}}})
            },
        },
        "components": {
            "schemas": _schemas(),
            "responses": {
                "406": {"description": NOT_ACCEPTABLE, "content": json_of("Error")},
                "500": error_response(500, "A bug. The log has its traceback."),
                "503": error_response(503, "The answer took too long."),
            },
        },
    }


def _schemas() -> Json:
    lease = object_of(
        is_leader={"type": "boolean", "description": "Whether this task's process leads."},
        state=TEXT | {"description": "Where the lease stands, as the sidecar says; `unknown` until it has said."},
        holder=or_null(TEXT),
        token=or_null(TOKEN),
        remaining={"type": "number", "minimum": 0, "description": "Seconds that this process may still believe it."},
        last_writer=or_null(object_of(holder=TEXT, token=TOKEN, since=INSTANT)),
    )
    tracker = object_of(
        lease={"const": TRACKER_LEASE},
        last_run=or_null(INSTANT),
        next_run=or_null(INSTANT),
        loading=or_null(object_of(portfolios_done=integer(0), portfolios=integer(0))),
    )
    job = object_of(lease={"const": SCHEDULER_LEASE}, last_run=or_null(ref("schemas", "JobRun")), next_run=INSTANT)
    return {
        "BackgroundStatus": object_of(
            instance_id=or_null(TEXT),
            leases=object_of(**{TRACKER_LEASE: lease, SCHEDULER_LEASE: lease}),
            jobs=object_of(tracker=tracker, **dict.fromkeys(JOBS, job)),
            database=TEXT | {"description": "`ok`, or what is wrong; the jobs' last runs are null then."},
        ),
        "JobRun": object_of(
            session_date=DAY,
            status={"enum": list(get_args(RunStatus))},
            rows_written=integer(0),
            rows_added=integer(0),
            rows_changed=integer(0),
            attempts=integer(1),
            error=or_null(TEXT) | {"description": "Why the last attempt failed."},
            holder=TEXT,
            token=TOKEN,
            started_at=INSTANT,
            updated_at=INSTANT,
            finished_at=or_null(INSTANT),
        ),
        "Health": object_of(
            status={"enum": ["ok", "draining"]},
            database=TEXT | {"description": "`ok`, or what is wrong."},
            sidecar=TEXT | {"description": "`ok`, or what is wrong."},
        ),
        "Error": object_of(error=TEXT),
    }
