"""An event loop whose time stands still while anything is to be done, and jumps to the next timer where nothing is."""

import asyncio
import selectors


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its clock begins at `now`, in seconds. Nothing outside of the process may be waited for."""

    def __init__(self, now: float) -> None:
        self.now = now
        super().__init__(_Jumps(self))

    def time(self) -> float:
        """The virtual time."""
        return self.now


class _Jumps(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events:
            if timeout is None:
                raise RuntimeError("everybody waits, and nothing will ever happen")
            self._loop.now += timeout
        return events
