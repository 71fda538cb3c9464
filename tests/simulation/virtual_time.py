"""An event loop whose time stands still while it has work, and jumps to the next timer when it has none."""

import asyncio
import selectors


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock begins at `now`, in seconds. The loop must not wait for anything outside the process."""

    def __init__(self, now: float) -> None:
        self.now = now
        super().__init__(_Jumps(self))

    def time(self) -> float:
        return self.now


class _Jumps(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events:
            if timeout is None:
                raise RuntimeError("every task waits, and no timer is set")
            self._loop.now += timeout
        return events
