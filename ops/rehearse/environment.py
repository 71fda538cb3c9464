"""The environment of each container: the definition's, with the rehearsal's servers and timings in it."""

from collections.abc import Mapping

from ops.local.definition import ContainerDefinition
from ops.rehearse.profile import Profile
from ops.rehearse.servers import addresses

_REDIS = "REDIS_HOST", "REDIS_PORT", "REDIS_URL"


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
    replaced = _REDIS if "REDIS_URL" in servers else ()
    kept = {name: value for name, value in container.variables.items() if name not in replaced}
    return kept | profile.changed(container) | servers | dict(endpoints)
