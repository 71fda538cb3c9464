"""The two programs of a task, as far as the runner has to know them."""

from collections.abc import Mapping

from ops.local.definition import ContainerDefinition, DefinitionError, TaskDefinition, Variable

API, SIDECAR = "api", "sidecar"
"""Their containers in `task-definition.json`."""

DEFAULTS: Mapping[str, Mapping[str, str]] = {
    API: {
        "API_BIND": "0.0.0.0:8080",
        "INTERNAL_BIND": "0.0.0.0:9101",
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
"""What they take where the definition leaves it out, of the variables that must differ on this machine; of the prices'
source, which they do not start without, what it is here."""


def spelled_out(definition: TaskDefinition) -> TaskDefinition:
    """The containers that can be run here, with these defaults in their environment: what is not there cannot be moved.

    Raises:
        DefinitionError: it has no container for one of the programs.
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
