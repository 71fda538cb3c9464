"""A run with real containers on a private network. A signal ends the run; at its end, all that it made is removed."""

import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TypeVar

from ops.images.engine import ImageError
from ops.local.definition import DefinitionError
from ops.local.postgres_server import NOTE, remove_private_folder
from ops.local.server import ServerError
from ops.rehearse.cgroups import groups, remove_groups, stage_group
from ops.rehearse.host import check, only_one
from ops.rehearse.network import enter_private_network, namespaces, remove_namespaces
from ops.rehearse.podman import containers, remove_containers
from ops.rehearse.programs import RehearsalError

INTERRUPTED = 130
SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP

Result = TypeVar("Result")


def exit_status(name: str, run: Callable[[], int]) -> int:
    """Return the exit status of `run()`, 2 with one error line if it cannot run or fails, or 130 after a signal.

    Each signal raises KeyboardInterrupt in `run`. Only one run can be active on the machine.
    """
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)
    try:
        check()
        with only_one():
            return run()
    except (RehearsalError, ServerError, DefinitionError, ImageError) as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{name}: interrupted; nothing is left\n")
        return INTERRUPTED


async def until(condition: Callable[[], bool | Awaitable[bool]], limit: float, what: str) -> None:
    """Wait until the condition holds.

    Raises:
        RehearsalError: the condition does not hold within `limit` seconds.
    """
    deadline = time.monotonic() + limit
    while True:
        found = condition()
        if found if isinstance(found, bool) else await found:
            return
        if time.monotonic() > deadline:
            raise RehearsalError(f"after {limit:g} s this is still not true: {what}")
        await asyncio.sleep(0.1)


def alone(run: Callable[[], Coroutine[None, None, Result]]) -> tuple[Result, list[str]]:
    """Run in a new network namespace; returns the result, and the names of what the run left behind.

    Raises:
        RehearsalError: this machine does not allow the run, or the run failed.
        KeyboardInterrupt: a signal has ended the run.
    """
    enter_private_network()
    asyncio.run(_remove_all())  # what a killed run left behind
    left: list[str] = []
    try:
        with stage_group():
            result = asyncio.run(_until_signalled(run()))
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        left += asyncio.run(_remove_all())
    return result, left


def empty(folder: Path) -> None:
    """Remove the files of an earlier run, and the private folder of each of its Postgres servers."""
    for note in folder.rglob(f"postgres/{NOTE}"):
        remove_private_folder(note.parent)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        elif not path.is_dir():
            path.unlink()
    folder.mkdir(parents=True, exist_ok=True)


async def _remove_all() -> list[str]:
    """Remove everything that a rehearsal makes.

    Returns:
        The names of the containers and namespaces that existed, and of the cgroups that could not be removed.
    """
    left = [*await containers(), *await namespaces()]
    await remove_containers()
    await remove_namespaces()
    await remove_groups()
    return [*left, *map(str, groups())]


async def _until_signalled(run: Coroutine[None, None, Result]) -> Result:
    """Await the run. The first SIGINT, SIGTERM or SIGHUP cancels it, so that it removes what it made."""
    task = asyncio.ensure_future(run)
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, lambda: None if task.cancelling() else task.cancel())
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    except BaseExceptionGroup as group:
        raise _first(group) from group


def _first(error: BaseException) -> BaseException:
    """Return the first error of a group, at any depth."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
