"""Whether this process serves, and what it knows of its neighbours."""

from collections.abc import Callable


class Health:
    """The state of the process.

    Args:
        database: why the database cannot be used, None while it can.
        sidecar: `ok`, or what is wrong with the sidecar.
    """

    def __init__(self, database: Callable[[], str | None], sidecar: Callable[[], str]) -> None:
        self.draining = False
        """Set when the process is told to end: a load balancer then sends its requests elsewhere."""
        self._database = database
        self._sidecar = sidecar

    @property
    def state(self) -> str:
        """`ok` or `draining`."""
        return "draining" if self.draining else "ok"

    @property
    def http_status(self) -> int:
        """503 only while the process drains. An outage of a neighbour changes nothing: see `store_access`."""
        return 503 if self.draining else 200

    def report(self) -> dict[str, str]:
        """The state, and what is wrong with the neighbours."""
        return {"status": self.state, "database": self._database() or "ok", "sidecar": self._sidecar()}
