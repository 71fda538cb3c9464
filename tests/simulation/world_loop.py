"""An event loop in a simulated world: its clock is the world's clock, and its process can be frozen."""

import asyncio
import selectors
from math import inf
from typing import Any

from tests.simulation.client_driven import Bare
from tests.simulation.driven import START


class WorldLoop(asyncio.SelectorEventLoop):
    """A loop on the world's clock.

    While the loop waits, the world runs. While the loop is `frozen`, only the world runs.
    """

    def __init__(self, world: Bare) -> None:
        self.world = world
        self.frozen = False
        self.touched = False
        """Whether an event for the loop has occurred since the loop last began to wait."""
        super().__init__(_Waits(self))

    def time(self) -> float:
        return START + self.world.now

    def touch(self, future: "asyncio.Future[Any]", answer: object) -> None:
        """Deliver data from the network at once. A frozen process gets the data when it thaws, before its timers."""
        self.touched = True
        self.call_soon(_settle, future, answer)


def _settle(future: "asyncio.Future[Any]", answer: object) -> None:
    if not future.done():
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)


class _Waits(selectors.SelectSelector):
    def __init__(self, loop: WorldLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        loop, world = self._loop, self._loop.world
        until = inf if timeout is None else world.now + timeout
        loop.touched = False
        while loop.frozen or (not loop.touched and world.due() <= until):
            world.step()
        if not loop.touched:
            world.now = max(world.now, until)
        return super().select(0)
