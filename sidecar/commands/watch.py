"""`python -m sidecar watch`: shows the leases live until Ctrl-C, even if Redis fails after the first look."""

import asyncio
import os
import signal
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TextIO

from runtime.clock import elapsed
from sidecar.commands.changes import POLL, Changes, hearing
from sidecar.commands.connection import CommandError, CommandRedis
from sidecar.commands.display import Display, Screen, display_for
from sidecar.commands.look import look
from sidecar.commands.view import View
from sidecar.settings import Settings

STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end the command. They are blocked before and after `watch`, so that no signal causes a traceback."""


async def watch(redis: CommandRedis, settings: Settings, stream: TextIO, *, as_json: bool, term: str) -> None:
    """Show the leases until a signal, or until the reader of the lines has closed the pipe.

    Args:
        redis: the connection.
        settings: the leases, and where Redis is.
        stream: the output.
        as_json: whether each line is a JSON object.
        term: the terminal's type, TERM.

    Raises:
        CommandError: Redis refuses the first look, or does not answer.
        BrokenPipeError: nobody reads the lines any more.
    """
    display = display_for(stream, as_json=as_json, term=term)
    view = View(
        settings.keys, settings.redis.place, clock=elapsed, now=lambda: datetime.now(UTC), report=display.report
    )
    ended = asyncio.Event()
    async with _signals(display, view, ended.set), hearing(redis, settings, settings.keys) as changes:
        tasks = [
            asyncio.create_task(each)
            for each in (
                _look(redis, settings, view, changes, display), _tick(view, display), _closed(stream), ended.wait(),
            )
        ]  # fmt: skip
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            display.close(view)
    for result in results:
        if isinstance(result, Exception):
            raise result


async def _look(redis: CommandRedis, settings: Settings, view: View, changes: Changes, display: Display) -> None:
    """Look at the leases whenever they may have changed."""
    answered = False
    while True:
        try:
            for lease, key in settings.keys.items():
                view.saw(lease, await look(redis, key))
            answered, pause = True, view.expires_in()
        except CommandError as error:
            if not answered:
                raise
            view.lost(str(error))
            pause = POLL
        view.late = changes.late
        display.show(view)
        await changes.wait(pause)


async def _tick(view: View, display: Display) -> None:
    """Redraw the view at each tick, because the remaining times have changed."""
    while display.tick is not None:
        await asyncio.sleep(display.tick)
        _redraw(view, display)
    await asyncio.Event().wait()


async def _closed(stream: TextIO) -> None:
    """Wait until the reader of a pipe has closed it. A failed write would show this only at the next change.

    Raises:
        BrokenPipeError: the reader has closed the pipe.
    """
    end = stream.fileno()
    closed = asyncio.Event()
    if stat.S_ISFIFO(os.fstat(end).st_mode):
        asyncio.get_running_loop().add_reader(end, closed.set)
    try:
        await closed.wait()
    finally:
        asyncio.get_running_loop().remove_reader(end)
    raise BrokenPipeError


@asynccontextmanager
async def _signals(display: Display, view: View, end: Callable[[], None]) -> AsyncIterator[None]:
    """Handle signals until the `async with` block ends."""
    loop = asyncio.get_running_loop()
    for number in STOP:
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # ignored under nohup
            loop.add_signal_handler(number, end)
    if isinstance(display, Screen):
        loop.add_signal_handler(signal.SIGWINCH, _redraw, view, display)
        loop.add_signal_handler(signal.SIGTSTP, _suspend, view, display)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)  # a blocked signal arrives now
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP)


def _redraw(view: View, display: Display) -> None:
    """Show the view again, once there is something to show."""
    if view.is_known:
        display.show(view)


def _suspend(view: View, screen: Screen) -> None:
    screen.suspend()
    _redraw(view, screen)  # after SIGCONT
