"""The health of this process, and the state of its dependencies."""

from collections.abc import Awaitable, Callable
from typing import Literal

from service.api import internal_responses


class Health:
    """The health of the process.

    Args:
        database: returns why the database cannot be used; None while it can be used.
        sidecar: returns `ok`, or what is wrong with the sidecar.
        memory: returns `ok`, or the use of the memory while new streams are refused.
    """

    def __init__(
        self, database: Callable[[], str | None], sidecar: Callable[[], Awaitable[str]], memory: Callable[[], str]
    ) -> None:
        self.draining = False
        """True once the process has begun to stop. A load balancer then sends its requests to other tasks."""
        self._database = database
        self._sidecar = sidecar
        self._memory = memory

    @property
    def state(self) -> Literal["ok", "draining"]:
        """`ok` or `draining`."""
        return "draining" if self.draining else "ok"

    @property
    def http_status(self) -> int:
        """503 while the process drains. An outage of a dependency does not count; see `service.api.store_access`."""
        return 503 if self.draining else 200

    async def report(self) -> internal_responses.Health:
        """The state of this process, of its memory and of its dependencies."""
        sidecar = await self._sidecar()
        return internal_responses.Health(
            status=self.state, database=self._database() or "ok", sidecar=sidecar, memory=self._memory()
        )
