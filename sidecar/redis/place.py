"""The place of the leases' server: a fixed address, or an address that cluster nodes or sentinels name."""

from typing import TYPE_CHECKING, Protocol

from sidecar.server_kind import Node

if TYPE_CHECKING:
    from sidecar.redis.connection import RedisConnection


class Place(Protocol):
    """Knows where the server is. Every method that waits is bounded by the limit of the call that connects."""

    async def find(self) -> Node:
        """The host and the port to connect to.

        Raises:
            RedisError, OSError: nobody can say.
        """

    async def confirm(self, connection: "RedisConnection") -> None:
        """Check that the server of a connection just made is the right one.

        Raises:
            RedisError, OSError: the server is not the right one, or does not answer.
        """

    async def assure(self) -> None:
        """Check that the server that was found last is the right one at this moment, before a lease is taken.

        Raises:
            OtherPrimary: it is not; nothing was sent.
            RedisError, OSError: nobody can say.
        """

    def doubt(self) -> None:
        """The server that was found last has failed, or may not be the right one any more."""

    @property
    def redirects(self) -> bool:
        """Whether another node that the server names is followed."""

    def moved(self, node: Node) -> None:
        """The server named another node as the right one; only where this place `redirects`."""

    def beside(self, node: Node) -> "RedisConnection":
        """A connection to another node that the server named for one answer; only where this place `redirects`."""

    async def elsewhere(self) -> bool:
        """Whether the server is known to be at another place than the one that was found last."""


class NoRedirects:
    """For a place where no server knows a better one."""

    redirects = False

    async def assure(self) -> None:
        """The server itself says so, if anybody does."""

    def moved(self, node: Node) -> None:
        """Not followed."""

    def beside(self, node: Node) -> "RedisConnection":
        """Not followed."""
        raise NotImplementedError


class FixedPlace(NoRedirects):
    """One address, or a name that leads to the primary."""

    def __init__(self, host: str, port: int) -> None:
        self._node = host, port

    async def find(self) -> Node:
        """The address."""
        return self._node

    async def confirm(self, connection: "RedisConnection") -> None:
        """Any server there is the right one."""

    def doubt(self) -> None:
        """The address stays; the name is looked up for each connection."""

    async def elsewhere(self) -> bool:
        """An address never changes."""
        return False
