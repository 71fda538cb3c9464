"""The environment of each container: the definition's variables, with the rehearsal's servers and timings."""

from collections.abc import Mapping

from ops.local.definition import ContainerDefinition
from ops.rehearse.profile import Profile
from ops.rehearse.servers import REDIS_USER, addresses


def container_environment(
    container: ContainerDefinition, profile: Profile, endpoints: Mapping[str, str]
) -> dict[str, str]:
    """Return the whole environment of a container.

    Args:
        container: the container.
        profile: the differences from the definition.
        endpoints: the addresses of ECS's metadata endpoint and agent.
    """
    servers = addresses().get(container.name, {})
    kept = {name: value for name, value in container.variables.items() if not _is_of_redis(name)}
    user = {"REDIS_USERNAME": REDIS_USER} if "REDIS_USERNAME" in container.variables else {}
    return kept | profile.changed(container) | servers | user | dict(endpoints)


def _is_of_redis(variable: str) -> bool:
    """Return true if the variable has the address or the login of production's Redis."""
    return variable.startswith("REDIS_") and variable != "REDIS_TIMEOUT"
