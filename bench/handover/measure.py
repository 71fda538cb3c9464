"""The run: the contenders' environments and servers, rounds by SIGTERM in turns, and rounds by SIGKILL side by side."""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import environments
from bench.handover.contenders import Contender
from bench.handover.group import Group, group
from bench.handover.tables import Options, Samples, report
from bench.report import Report, progress

TURN = 25
"""Number of hand-overs of one contender before the next contender's turn."""


async def measure(options: Options) -> Report:
    """Measure the contenders.

    Raises:
        Missing: pip cannot install a library, or the program of a server does not exist.
        ServerError: a server did not start.
        Stuck: a contender did not do what a round needs.
        ExceptionGroup: the same, from contenders that ran side by side.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = _Run(options, Path(folder))
        run.install()
        stops = await run.stops_in_turns()
        slow, kills = await run.side_by_side()
    return report(options, stops | slow, kills, run.versions)


@dataclass
class _Run:
    options: Options
    folder: Path
    pythons: dict[Contender, Path] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def install(self) -> None:
        """Find or make the environment of each contender."""
        with progress(len(self.options.contenders), "installing", "library") as bar:
            for contender in self.options.contenders:
                self.pythons[contender] = Path(sys.executable)
                if contender.project is not None:
                    self.pythons[contender] = environments.environment(contender.project) / "python"
                    self.versions[contender.project] = environments.version(contender.project)
                bar.update()

    async def stops_in_turns(self) -> Samples:
        """Hand over by SIGTERM; the contenders take turns, so that other load affects all alike."""
        rounds = self.options.rounds
        contenders = [each for each in self.options.contenders if each.rounds is None]
        took: Samples = {contender: [] for contender in contenders}
        async with AsyncExitStack() as stack:
            groups = [await stack.enter_async_context(self._group(contender)) for contender in contenders]
            with progress(rounds * len(groups), "SIGTERM", "hand-over") as bar:
                for done in range(0, rounds, TURN):
                    for each in groups:
                        found, leader = await each.hand_overs(min(TURN, rounds - done), bar.update)
                        await each.rest(leader)
                        took[each.contender] += found
        return took

    async def side_by_side(self) -> tuple[Samples, Samples]:
        """Hand over by SIGKILL, and by SIGTERM where that takes seconds; all contenders wait at the same time."""
        slow: Samples = {each: [] for each in self.options.contenders if each.rounds is not None}
        kills: Samples = {each: [] for each in self.options.contenders if each.loses and self.options.kills}
        total = self.options.kills * len(kills) + sum(each.rounds or 0 for each in slow)
        if total == 0:
            return slow, kills
        with progress(total, "SIGKILL", "hand-over") as bar:
            async with asyncio.TaskGroup() as lanes:
                for contender, took in slow.items():
                    lanes.create_task(self._stops(contender, took, bar.update))
                for contender, took in kills.items():
                    lanes.create_task(self._losses(contender, took, bar.update))
        return slow, kills

    async def _stops(self, contender: Contender, took: list[float], done: Callable[[], object]) -> None:
        async with self._group(contender) as each:
            took += (await each.hand_overs(contender.rounds or 0, done))[0]

    async def _losses(self, contender: Contender, took: list[float], done: Callable[[], object]) -> None:
        async with self._group(contender, self.options.ttl) as each:
            leader = await each.elect()
            for _ in range(self.options.kills):
                seconds, leader = await each.loss(leader)
                took.append(seconds)
                done()

    @asynccontextmanager
    async def _group(self, contender: Contender, ttl: float | None = None) -> AsyncIterator[Group]:
        """Run a server and the candidates of a contender while the block runs."""
        folder = self.folder / f"{self.options.contenders.index(contender)}-{'stop' if ttl is None else 'kill'}"
        server = contender.server(folder / "server")
        candidates = folder / "candidates"
        await asyncio.to_thread(candidates.mkdir, parents=True)
        await server.start_beside()
        try:
            name, version = server.version()
            self.versions[name] = version
            async with group(contender, self.pythons[contender], server, candidates, ttl=ttl) as found:
                yield found
        finally:
            await asyncio.to_thread(server.stop)
