"""A redis-server whose wall clock a test sets through a preloaded shim, which is compiled for the test."""

import struct
import subprocess
from pathlib import Path

from ops.local.servers import RedisServer

SOURCE = Path(__file__).with_name("clock_shim.c")


def compiled(folder: Path) -> Path:
    """Compile the shim, and return the library to preload."""
    library = folder / "clock_shim.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(library), str(SOURCE)], check=True
    )
    return library


class SteppedRedis(RedisServer):
    """A redis-server whose wall clock a test can step."""

    def __init__(self, folder: Path, shim: Path, binary: Path) -> None:
        super().__init__(folder, binary=binary)
        self._shim = shim
        self._file = folder / "offset"
        self._offset = 0.0

    def prepare(self) -> None:
        super().prepare()
        self._file.write_bytes(struct.pack("=q", 0))

    def command(self) -> list[str]:
        return ["/usr/bin/env", f"LD_PRELOAD={self._shim}", f"CLOCK_OFFSET={self._file}", *super().command()]

    def step(self, seconds: float) -> None:
        self._offset += seconds
        with self._file.open("r+b") as file:  # in place: the server has mapped this file
            file.write(struct.pack("=q", round(self._offset * 1e6)))
