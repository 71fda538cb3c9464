"""The observations of a run: the growing diaries of the clients, and the lifetime of each process."""

import json
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any


@dataclass
class Belief:
    """A client's belief that it led, from `began` to `end`, in seconds of CLOCK_BOOTTIME.

    A killed process counts as believing until its deadline, since no other client may rely on its death.
    """

    task: str
    lease: str
    token: int
    holder: str
    began: float
    until: float
    ended: float = inf
    extended: list[float] = field(default_factory=list)
    """The times at which its grant was extended."""

    @property
    def end(self) -> float:
        """The end of the belief: the deadline, or an earlier time at which the client ended the belief."""
        return min(self.until, self.ended)


@dataclass(frozen=True)
class Refusal:
    """A write or claim that was requested at `began` and refused at `at`, in seconds of CLOCK_BOOTTIME."""

    task: str
    lease: str
    token: int
    began: float
    at: float


@dataclass(frozen=True)
class Checked:
    """A writer's process that has checked its term and has not sent its write yet."""

    task: str
    lease: str
    token: int
    pid: int


@dataclass
class Life:
    """A container's process, from `began` to `ended`."""

    task: str
    container: str
    pid: int
    began: float
    ended: float = inf


@dataclass
class Observations:
    """All observations; `read` adds the new lines of the diaries."""

    folder: Path
    beliefs: list[Belief] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    checked: dict[tuple[str, str], Checked] = field(default_factory=dict)
    """The writers that are between check and write, or were killed between the two, by task and lease."""
    _grants: dict[str, Belief] = field(default_factory=dict)
    _read_to: dict[Path, int] = field(default_factory=dict)

    def diary(self, task: str) -> Path:
        """The path of a task's diary."""
        return self.folder / f"{task}.diary"

    def read(self) -> list[Belief]:
        """Read the new lines; returns the beliefs whose start is in these lines."""
        begun: list[Belief] = []
        for path in sorted(self.folder.glob("*.diary")):
            with path.open("rb") as file:
                file.seek(self._read_to.get(path, 0))
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read_to[path] = self._read_to.get(path, 0) + len(line)
                    begun += self._entry(path.stem, json.loads(line))
        self.beliefs += begun
        return begun

    def leader(self, lease: str, now: float) -> Belief | None:
        """Return the current belief, or None; if there are two, the belief of the newest term."""
        current = [belief for belief in self.beliefs if belief.lease == lease and belief.began <= now < belief.end]
        return max(current, key=lambda belief: belief.token, default=None)

    def lived(self, task: str, container: str, pid: int | None, now: float) -> None:
        """Record the process that a container has now; `pid` is None if it has none."""
        last = next((life for life in reversed(self.lives) if (life.task, life.container) == (task, container)), None)
        if last is not None and last.ended == inf and last.pid != pid:
            last.ended = now
        if pid is not None and (last is None or last.pid != pid or last.ended != inf):
            self.lives.append(Life(task, container, pid, now))

    def _entry(self, task: str, entry: dict[str, Any]) -> list[Belief]:
        match entry:
            case {"what": "believes", "grant": grant}:
                belief = Belief(task, entry["lease"], entry["token"], entry["holder"], entry["at"], entry["until"])
                self._grants[grant] = belief
                return [belief]
            case {"what": "extended", "grant": grant}:
                self._grants[grant].until = entry["until"]
                self._grants[grant].extended.append(entry["at"])
            case {"what": "ended", "grant": grant} if grant in self._grants:
                self._grants[grant].ended = min(self._grants[grant].ended, entry["at"])
            case {"what": "checked"}:
                found = Checked(task, entry["lease"], entry["token"], entry["pid"])
                self.checked[task, found.lease] = found
            case {"what": "writes"}:
                self.checked.pop((task, entry["lease"]), None)
            case {"what": "refused"}:
                self.refusals.append(Refusal(task, entry["lease"], entry["token"], entry["began"], entry["at"]))
        return []
