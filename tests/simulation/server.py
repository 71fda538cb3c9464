"""A simulated Redis server: the model with a clock, a process, a replica and watchers."""

from typing import TYPE_CHECKING

from tests.simulation.redis_model import RedisModel

if TYPE_CHECKING:
    from tests.simulation.candidate import Sidecar

EPOCH = 1_790_000_000.0
"""The wall clock at the start of the world, in seconds."""
FROM_INSIDE = "READONLY You can't write against a read only replica. script: 0, on @user_script:1."
"""An error that a command inside a script raised."""


class Server:
    """One server, stopped until the true time `thaw_at`; `error`, if set, is its answer to every script."""

    __slots__ = (
        "acked",
        "error",
        "island",
        "linked",
        "model",
        "offset",
        "rate",
        "refusals",
        "replica",
        "replicas",
        "thaw_at",
        "trap",
        "up",
        "watchers",
    )

    def __init__(self, run_id: str, *, rate: float, offset: float, born: float) -> None:
        self.rate = rate
        self.offset = offset
        self.model = RedisModel(run_id, started=int(born * rate + offset), replid=f"-stint-of-{run_id}")
        self.up = True
        self.thaw_at = 0.0
        self.error: str | None = None
        self.refusals = 0
        """The number of scripts that the server still refuses."""
        self.island: list[int] | None = None
        """The tasks that still reach the server while it is isolated; None if it is not isolated."""
        self.linked = True
        self.replicas = 1
        """The number of replicas that the server counts as connected."""
        self.acked = 0
        """The offset that the replicas had confirmed when the link broke."""
        self.replica: RedisModel | None = None
        """The data of the replica when the link broke; None while it replicates."""
        self.trap = 0
        """The number of writes to the key after which the server dies; 0 for never."""
        self.watchers: list[Sidecar] = []

    def set_clock(self, now: float) -> int:
        """Set the model's clock to the server's wall time at the true time `now`; returns the wall time in µs."""
        self.model.now = wall = int((now * self.rate + self.offset) * 1e6)
        return wall

    def count_watches(self) -> tuple[int, int]:
        """The numbers of direct and relayed watches."""
        direct = sum(sidecar.watches_directly for sidecar in self.watchers)
        return direct, len(self.watchers) - direct

    def break_link(self) -> None:
        """Stop replicating."""
        if self.linked:
            self.linked = False
            self.acked = self.model.offset
            self.replica = RedisModel(self.model.run_id, started=self.model.started)
            self.replica.copy_data(self.model)

    def repair_link(self) -> None:
        """Replicate again: the replica is up to date."""
        self.linked, self.replica, self.replicas = True, None, 1

    def confirms(self, wanted: int, offset: int) -> bool:
        """Whether `WAIT wanted` succeeds on a connection whose last write was at `offset`."""
        if self.linked:
            return wanted <= self.replicas
        return wanted <= self.replicas and self.acked >= offset

    def true_time(self, wall_ms: int) -> float:
        """The true time at which the server's clock shows `wall_ms`."""
        return (wall_ms / 1000 - self.offset) / self.rate
