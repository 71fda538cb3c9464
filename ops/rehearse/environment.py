"""The environment of each container: the definition's, with the rehearsal's servers and timings in it."""

from collections.abc import Mapping

from ops.local.definition import ContainerDefinition
from ops.rehearse.profile import Profile
from ops.rehearse.servers import REDIS_USER, addresses


def container_environment(
    container: ContainerDefinition, profile: Profile, endpoints: Mapping[str, str]
) -> dict[str, str]:
    """The whole environment that the task gives a container.

    Args:
        container: whose.
        profile: what differs from the definition.
        endpoints: the addresses that ECS gives, of metadata and agent.
    """
    servers = addresses().get(container.name, {})
    kept = {name: value for name, value in container.variables.items() if not _is_of_redis(name)}
    user = {"REDIS_USERNAME": REDIS_USER} if "REDIS_USERNAME" in container.variables else {}
    return kept | profile.changed(container) | servers | user | dict(endpoints)


def _is_of_redis(variable: str) -> bool:
    """Return true if the variable has the address of production's Redis, or a login to it."""
    return variable.startswith("REDIS_") and variable != "REDIS_TIMEOUT"
