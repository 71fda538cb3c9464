"""The run: the contenders' environments and servers, rounds by SIGTERM in turns, and rounds by SIGKILL side by side."""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import environments
from bench.environments import Missing
from bench.handover.contenders import Contender
from bench.handover.group import Group, group
from bench.handover.legs import Legs, legs
from bench.handover.servers import RedisLease
from bench.handover.tables import Options, Samples, report
from bench.report import Report, progress

TURN = 20
"""Number of hand-overs in one contender's turn."""
LEGS = 50
"""Number of hand-overs whose legs are measured."""


async def measure(options: Options) -> Report:
    """Measure the contenders.

    Raises:
        Missing: pip cannot install a library, or the program of a server does not exist.
        ServerError: a server did not start.
        Stuck: a contender did not do what a round needs.
        ExceptionGroup: these errors, from contenders that ran side by side.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = _Run(options, Path(folder))
        run.install()
        stops, legs = await run.stops_in_turns()
        slow, kills = await run.side_by_side()
    return report(options, stops | slow, kills, legs, run.versions)


@dataclass
class _Run:
    options: Options
    folder: Path
    pythons: dict[Contender, Path] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def install(self) -> None:
        """Find the server of each contender, and find or create its environment.

        Raises:
            Missing: a server or an environment is missing; the text names the option that leaves the contender out.
        """
        with progress(len(self.options.contenders), "installing", "library") as bar:
            for contender in self.options.contenders:
                try:
                    contender.server(self.folder).check()
                    self.pythons[contender] = self._python(contender)
                except Missing as error:
                    raise Missing(f"{error}. The option --without {contender.key} leaves it out.") from None
                bar.update()

    def _python(self, contender: Contender) -> Path:
        """Return the interpreter for the contender's programs, and keep the library's version."""
        if contender.project is None:
            return Path(sys.executable)
        programs = environments.environment(contender.project)
        name = "redis-py" if contender.project == "redis" else contender.project  # `Redis` names the server
        self.versions[name] = environments.version(contender.project)
        return programs / "python"

    async def stops_in_turns(self) -> tuple[Samples, dict[str, list[Legs]]]:
        """Hand over by SIGTERM; the contenders take turns, so that other load affects all alike.

        The legs are measured in separate hand-overs, since MONITOR slows Redis down.
        """
        rounds = self.options.rounds
        contenders = [each for each in self.options.contenders if each.rounds is None]
        took: Samples = {contender: [] for contender in contenders}
        found: dict[str, list[Legs]] = {}
        async with AsyncExitStack() as stack:
            groups = [await stack.enter_async_context(self._group(contender)) for contender in contenders]
            monitored = [each for each in groups if each.contender.legs]
            total = rounds * len(groups) + min(LEGS, rounds) * len(monitored)
            with progress(total, "SIGTERM", "hand-over") as bar:
                for done in range(0, rounds, TURN):
                    for each in groups:
                        hand_overs, leader = await each.hand_overs(min(TURN, rounds - done), bar.update)
                        await each.rest(leader)
                        took[each.contender] += [hand_over.seconds for hand_over in hand_overs]
                for each in monitored:
                    assert isinstance(each.server, RedisLease)
                    found[each.contender.name] = await legs(each, each.server, min(LEGS, rounds), bar.update)
        return took, found

    async def side_by_side(self) -> tuple[Samples, Samples]:
        """Hand over by SIGKILL, and by SIGTERM with the slow contenders; all contenders run at the same time."""
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
            hand_overs, _ = await each.hand_overs(contender.rounds or 0, done)
            took += [hand_over.seconds for hand_over in hand_overs]

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
