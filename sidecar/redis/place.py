"""The place of the leases' server: a fixed address, or an address that cluster nodes or sentinels name."""

from typing import TYPE_CHECKING, Protocol

from sidecar.server_kind import Node

if TYPE_CHECKING:
    from sidecar.redis.connection import RedisConnection


class Place(Protocol):
    """Determines where the server is.

    A method that waits has a limit: the limit of one connection, or a limit that its caller sets.
    """

    async def find(self) -> Node:
        """The host and the port to connect to.

        Raises:
            RedisError, OSError: the place cannot be found.
        """

    async def confirm(self, connection: "RedisConnection") -> None:
        """Check that the server of a new connection is the right one.

        Raises:
            RedisError, OSError: the server is not the right one, or does not answer.
        """

    @property
    def assured(self) -> bool:
        """Whether `assure` does nothing: there is nobody to ask, or the server refuses calls that it may not serve."""

    async def assure(self) -> None:
        """Check that the server that was found last is still the right one, before a lease is acquired.

        Raises:
            OtherPrimary: another server is the right one; nothing was sent.
            RedisError, OSError: the check failed.
        """

    def named(self, node: Node) -> str:
        """The node's address and who named it, for people; '' if the settings name it."""

    def doubt(self) -> None:
        """Record that the server that was found last has failed, or may not be the right one any more."""

    @property
    def redirects(self) -> bool:
        """Whether this place follows a redirect of the server to another node."""

    def moved(self, node: Node) -> None:
        """Record that the server named another node as the right one. Called only if this place `redirects`."""

    def beside(self, node: Node) -> "RedisConnection":
        """A connection to another node that the server named for one call. Called only if this place `redirects`."""

    async def elsewhere(self) -> bool:
        """Whether the server is known to be at another place than the place that was found last."""


def shown(node: Node) -> str:
    """The host and the port, for people."""
    host, port = node
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class NoRedirects:
    """The methods of a place that follows no redirects."""

    redirects = False
    assured = True

    async def assure(self) -> None:
        """Do nothing: there is nothing to ask."""

    def moved(self, node: Node) -> None:
        """Do nothing."""

    def beside(self, node: Node) -> "RedisConnection":
        """Not supported."""
        raise NotImplementedError


class FixedPlace(NoRedirects):
    """One address, or a name that leads to the primary."""

    def __init__(self, host: str, port: int, *, named: str = "") -> None:
        self._node = host, port
        self._named = named

    async def find(self) -> Node:
        """The address."""
        return self._node

    async def confirm(self, connection: "RedisConnection") -> None:
        """Do nothing: any server at the address is the right one."""

    def named(self, node: Node) -> str:
        """The text that was given for this node."""
        return self._named if node == self._node else ""

    def doubt(self) -> None:
        """Do nothing: the address stays, and its name is looked up for each connection."""

    async def elsewhere(self) -> bool:
        """Return False: the address is fixed."""
        return False
