"""The wall clock that all Redis data servers share, set by a preloaded shim. A failover does not step the clock."""

import shutil
import struct
from pathlib import Path

from ops.local.servers import RedisServer
from tests.faults.stepped_redis import compiled


class ServerClock:
    """A clock that is `behind` seconds behind the real time; the shim is compiled under `folder`.

    The clock is never ahead, so the time in a token is never later than the acquire of its term.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.behind = 0.0
        self._file = folder / "offset"
        self._file.write_bytes(struct.pack("=q", 0))
        self.environment = [f"LD_PRELOAD={compiled(folder)}", f"CLOCK_OFFSET={self._file}"]

    def set_behind(self, seconds: float) -> float:
        """Set the clock to `seconds` behind the real time; returns the size of the step in seconds."""
        step, self.behind = self.behind - seconds, seconds
        with self._file.open("r+b") as file:  # in place, since the servers have the file mapped
            file.write(struct.pack("=q", round(-seconds * 1e6)))
        return step


class ClockedRedis(RedisServer):
    """A redis-server whose wall clock is `clock`, or the machine's clock if `clock` is None."""

    def __init__(self, folder: Path, *, port: int, arguments: tuple[str, ...], clock: ServerClock | None) -> None:
        super().__init__(folder, port=port, arguments=arguments)
        self._clock = clock

    def command(self) -> list[str]:
        """The command line, with the shim in its environment."""
        shim = ["/usr/bin/env", *self._clock.environment] if self._clock else []
        return [*shim, *super().command()]


def server_clock(folder: Path) -> ServerClock | None:
    """Return a clock that can step; None without a C compiler."""
    return ServerClock(folder) if shutil.which("cc") else None
