"""The two programs of a task: their containers and their defaults."""

from collections.abc import Mapping

from ops.local.definition import ContainerDefinition, DefinitionError, TaskDefinition, Variable

API, SIDECAR = "api", "sidecar"
"""The names of the two containers in `task-definition.json`."""

DEFAULTS: Mapping[str, Mapping[str, str]] = {
    API: {
        "API_BIND": "0.0.0.0:8080",
        "INTERNAL_BIND": "0.0.0.0:9101",
        "CORS_ORIGINS": "",
        "SIDECAR_URL": "http://127.0.0.1:4040",
        "MARKET_CALENDAR": "NYSE",
        "TRACKER_INTERVAL": "30",
        "PRICE_SOURCE": "simulated",
        "AUTH": "supabase",
        "LOG_FORMAT": "json",
    },
    SIDECAR: {
        "REDIS_HOST": "localhost",
        "CONTROL_BIND": "127.0.0.1:4040",
        "METRICS_BIND": "0.0.0.0:9102",
        "LOG_FORMAT": "json",
    },
}
"""Defaults of the variables that a run on this machine may change. They apply if the definition does not set them.

They are the programs' own defaults, except for `PRICE_SOURCE` and `AUTH`, for which the service has no default.
"""


def spelled_out(definition: TaskDefinition) -> TaskDefinition:
    """Return the definition with only the containers that can run here, and with the defaults in their environment.

    Raises:
        DefinitionError: a program has no container.
    """
    names = {container.name for container in definition.container_definitions}
    for name in DEFAULTS:
        if name not in names:
            raise DefinitionError(f"task definition: no container is named {name}")
    containers = [_spelled_out(container) for container in definition.container_definitions if container.argv]
    return definition.model_copy(update={"container_definitions": containers})


def _spelled_out(container: ContainerDefinition) -> ContainerDefinition:
    left_out = [
        Variable(name=name, value=value)
        for name, value in DEFAULTS.get(container.name, {}).items()
        if name not in container.variables
    ]
    return container.model_copy(update={"environment": [*container.environment, *left_out]})
