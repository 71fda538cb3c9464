"""The journal of a rehearsal: events on the screen, and the containers' output in files."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import IO


class Journal:
    """Prints events; `lines` has each printed line with its time in seconds since the epoch.

    Args:
        folder: folder of the log files.
        say: writes a line to the screen.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.lines: list[tuple[float, str, str]] = []
        self._folder = folder
        self._say = say
        self._began = time.time()
        self._files: dict[str, IO[bytes]] = {}

    def event(self, who: str, text: str) -> None:
        """Print an event with its time."""
        self.lines.append((time.time(), who, text))
        self._say(f"{time.time() - self._began:7.1f}  {who:14} {text}")

    def output(self, who: str, chunk: bytes) -> None:
        """Write a container's output to its file."""
        name = who.replace("/", "-")
        if name not in self._files:
            self._files[name] = (self._folder / f"{name}.log").open("ab", buffering=0)
        self._files[name].write(chunk)

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()
