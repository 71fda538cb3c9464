"""Blocking jobs in their own threads. A task that is cancelled still awaits the end of its thread."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class WorkThreads:
    """The threads that the work of one term has started.

    They are daemon threads: unlike an executor's threads, they do not keep the interpreter from exiting.
    """

    def __init__(self) -> None:
        self._abandoned = False
        self._waiting: set[asyncio.Event] = set()

    async def run(self, job: Callable[[], T], name: str, stop: Callable[[], None]) -> T:
        """Run `job()` in a new thread, and return only when the thread has ended, or the threads are abandoned.

        A cancellation calls `stop()`, which has to make the job end soon. The cancellation is raised when the job has
        returned; an error of the job takes precedence.
        """
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        outcome: Future[T] = Future()
        ended = asyncio.Event()

        def run() -> None:
            try:
                outcome.set_result(context.run(job))
            except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
                outcome.set_exception(error)
            with suppress(RuntimeError):  # the loop is closed, and nothing waits
                loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=run, name=name, daemon=True).start()
        self._waiting.add(ended)
        interruption: asyncio.CancelledError | None = None
        while not (ended.is_set() or self._abandoned):
            try:
                await ended.wait()
            except asyncio.CancelledError as cancelled:
                interruption = cancelled
                stop()
        self._waiting.discard(ended)
        if not outcome.done():
            raise interruption or asyncio.CancelledError
        if interruption is not None and outcome.exception() is None:
            raise interruption
        return outcome.result()

    def abandon(self) -> None:
        """Stop waiting for the threads: the process is about to end, and they end with it."""
        self._abandoned = True
        for ended in self._waiting:
            ended.set()
