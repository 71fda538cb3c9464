"""The names of the servers, in place of DNS: one file that is the /etc/hosts of every container."""

from pathlib import Path

from ops.rehearse.network import POSTGRES, REDIS

POSTGRES_NAME = "postgres.rehearsal"
REDIS_NAME = "redis.rehearsal"


class Names:
    """The file `hosts`. Running containers see a change at once."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "hosts"
        self.redis = REDIS[0]
        self.point_redis_to(REDIS[0])

    def point_redis_to(self, address: str) -> None:
        """Point Redis's name to that address, as ElastiCache's primary endpoint does after a failover."""
        self.redis = address
        lines = ["127.0.0.1 localhost", f"{POSTGRES} {POSTGRES_NAME}", f"{address} {REDIS_NAME}"]
        # The file is overwritten, not replaced, since containers have mounted the file itself. It is never empty.
        with self._file.open("r+" if self._file.exists() else "w") as file:
            file.write("\n".join([*lines, ""]))
            file.truncate()
