"""The OpenAPI 3.1 description of the internal listener."""

from runtime.version import __version__
from service.api import internal_responses, responses
from service.api.operators_page import PARTS
from service.api.response_types import schemas_of
from service.api.schemas import TEXT, Json, error_response, json_of, operation

ABOUT = """\
For operators, scripts and Prometheus inside the network. All routes only read. Instants are ISO 8601 in UTC.
Errors are JSON with an `error` for people to read.
"""

NOT_ACCEPTABLE = "The Accept header asks for a version of the format that does not exist."


def internal_description() -> Json:
    """The description of all internal routes."""
    return {
        "openapi": "3.1.1",
        "info": {"title": "Portfolio service, internal listener", "version": __version__, "description": ABOUT},
        "paths": {
            "/": {"get": operation("The operators' page", {"text/html": {"schema": TEXT}})},
            **{
                f"/page/{name}": {"get": operation("A part of the operators' page", {content_type: {"schema": TEXT}})}
                for name, content_type in PARTS.items()
            },
            "/background/status": {
                "get": operation(
                    "The leaders, each job's last and next run, and the problems", json_of("BackgroundStatus")
                ),
            },
            "/background/history": {"get": operation("The last terms of each lease", json_of("History"))},
            "/healthz": {
                "get": operation(
                    "Whether this task serves, and the state of its dependencies; 503 while the task stops",
                    json_of("Health"),
                    stopping=True,
                ),
            },
            "/metrics": {
                "get": operation(
                    "Metrics for Prometheus",
                    {"text/plain": {"schema": TEXT}, "application/openmetrics-text": {"schema": TEXT}},
                    406,
                ),
            },
            "/openapi.json": {
                "get": operation("This description", {"application/json": {"schema": {"type": "object"}}})
            },
        },
        "components": {
            "schemas": schemas_of(
                internal_responses.BackgroundStatus,
                internal_responses.History,
                internal_responses.Health,
                responses.Error,
            ),
            "responses": {
                "406": {"description": NOT_ACCEPTABLE, "content": json_of("Error")},
                "500": error_response(500, "A bug; the log has the traceback."),
                "503": error_response(503, "The answer took too long."),
            },
        },
    }
