"""The handlers of SIGTERM and SIGINT."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_signals(stop: Callable[[signal.Signals], object]) -> Iterator[None]:
    """Call `stop` on the event loop for each of the signals. From the end of the block on, the signals are ignored.

    The loop's `add_signal_handler` is not used: a signal can kill the process as soon as the loop or the interpreter
    removes such a handler. Blocking the signals is not enough, because uvloop's threads do not block them. If
    a signal arrives just before a plain asyncio loop begins to wait, the loop may notice the signal late: only
    `add_signal_handler` sets the file descriptor that wakes the loop. uvloop always sets this descriptor.
    """
    loop = asyncio.get_running_loop()

    def handle(number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop, signal.Signals(number))

    for number in STOP:
        signal.signal(number, handle)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)  # a signal that came during the start arrives now
    try:
        yield
    finally:
        for number in STOP:
            signal.signal(number, signal.SIG_IGN)
