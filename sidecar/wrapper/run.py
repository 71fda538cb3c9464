"""Runs COMMAND while this task leads: once with `--once`, otherwise under each term until the wrapper is stopped."""

import asyncio
import errno
import json
import logging
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import ProxyHandler, build_opener

from runtime.clock import elapsed
from runtime.escape import one_line
from runtime.log_lines import JsonLines, TextLines
from runtime.log_output import LogOutput
from runtime.stop_signals import stop_signals
from sidecar.client import LeaseClient, Term
from sidecar.settings import SettingsError
from sidecar.wrapper.arguments import GRACE, Arguments, UsageError, Variables, parse, read
from sidecar.wrapper.group import Group, NotStarted, reap_others
from sidecar.wrapper.pauses import Pauses
from sidecar.wrapper.watchdog import TICK

MARGIN = 0.5
"""Seconds from the latest time for SIGKILL to the end of the grant; an eighth of the grant, if that is shorter."""
LOOKUP = 2.0
"""Limit of the request that checks whether the sidecar has the lease, in seconds."""

log = logging.getLogger("sidecar.exec")


def run(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run `exec`, and return the exit status.

    With `--once` it is COMMAND's status, or 128 plus the number of the signal if a signal came before COMMAND ran.
    Otherwise it is 0 after a signal to stop. If COMMAND cannot be executed, it is the status that a shell would give.

    Raises:
        UsageError: an argument is invalid, or the sidecar has no such lease.
        SettingsError: a variable has an invalid value.
    """
    arguments, variables = parse(words), read(environment)
    try:
        client = LeaseClient(variables.sidecar_url, stop_before=_grace(arguments) + MARGIN)
    except ValueError as error:
        raise SettingsError(f"SIDECAR_URL: {error}") from None
    _log_to_stderr(variables)
    try:
        _find(arguments.command[0])
        _find_lease(variables.sidecar_url, arguments.lease)
        return asyncio.run(_run(client, arguments))
    except NotStarted as error:
        log.critical("%s: %s; the wrapper ends with status %d", arguments.lease, error, error.status)
        return error.status


async def _run(client: LeaseClient, arguments: Arguments) -> int:
    wrapper = Wrapper(arguments, elapsed)
    work = asyncio.create_task(wrapper.run(client))
    received: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        if not received:  # a second signal must not cut short the wait for COMMAND's end and for the resign
            received.append(number)
            wrapper.stopping = True
            log.info("%s: %s: the wrapper stops", arguments.lease, number.name)
            work.cancel()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGCHLD, wrapper.child_ended)
    wrapper.child_ended()  # a child may have ended before the handler was set
    try:
        with stop_signals(stop):
            return await work
    except asyncio.CancelledError:
        if not received or not arguments.once:
            return 0
        return 128 + received[0] if wrapper.status is None else wrapper.status


class TermEndedFirst(Exception):
    """The term ended, or the wrapper was stopped, while COMMAND was running with `--once`."""


class Wrapper:
    """Runs COMMAND under each term.

    Args:
        clock: `runtime.clock.elapsed`.
    """

    def __init__(self, arguments: Arguments, clock: Callable[[], float]) -> None:
        self.status: int | None = None
        """The exit status of the last COMMAND that ran; None before that."""
        self.stopping = False
        """True after a signal to stop."""
        self._arguments = arguments
        self._grace = _grace(arguments)
        self._clock = clock
        self._child_ended = asyncio.Event()
        self._working = False
        self._pauses = Pauses()
        self._margin = 0.0
        self._warned = arguments.grace is None

    async def run(self, client: LeaseClient) -> int:
        """Campaign, and run COMMAND under each term. With `--once`, return its status; otherwise never return.

        Raises:
            NotStarted: COMMAND cannot be executed.
        """
        async with client:
            leadership = client.leadership(self._arguments.lease)
            while True:
                try:
                    worked = await leadership.run(self._work)
                except TermEndedFirst:
                    worked = 0.0
                if self._arguments.once and self.status is not None:
                    return self.status
                pause = self._pauses.after(worked)
                log.info("%s: campaigns again in %g s", self._arguments.lease, pause)
                await asyncio.sleep(pause)

    def child_ended(self) -> None:
        """Handle SIGCHLD."""
        self._child_ended.set()
        if not self._working:  # a group reaps its processes in order
            reap_others()

    async def _work(self, term: Term) -> float:
        """Run COMMAND until it ends by itself; returns the seconds for which it ran."""
        self._working = True
        try:
            return await self._run_command(term)
        finally:
            self._working = False
            reap_others()

    async def _run_command(self, term: Term) -> float:
        self._margin = 0.0
        grant = self._left(term)
        self._warn(grant, term)
        group, began = self._group(), self._clock()
        interruption: asyncio.CancelledError | None = None
        try:
            await group.start(self._arguments.command, _variables(term), began + grant - self._margin / 2)
            self._log(logging.INFO, term, f"{self._arguments.command[0]} runs as process {group.pid}")
            await self._attend(group, term)
        except asyncio.CancelledError as cancelled:
            interruption = cancelled
        finally:
            ending = asyncio.create_task(self._end(group, term, interruption is not None))
            while not ending.done():
                try:
                    await asyncio.wait((ending,))
                except asyncio.CancelledError as cancelled:  # COMMAND must end first
                    interruption = interruption or cancelled
        status = ending.result()
        if group.ran:
            self.status = status
        if interruption is None:
            return self._clock() - began
        if self._arguments.once and group.ran:
            raise TermEndedFirst
        raise interruption

    def _left(self, term: Term) -> float:
        """Return the seconds until the end of the grant. The margin grows with a longer grant, and never shrinks."""
        left = term.grant_left()
        self._margin = max(self._margin, min(MARGIN, left / 8))
        return left

    async def _attend(self, group: Group, term: Term) -> None:
        """Send the watchdog each new deadline until COMMAND or the watchdog has ended."""
        sent = 0.0
        while group.status is None:
            if group.watchdog_ended:
                self._log(logging.ERROR, term, "the watchdog ended: COMMAND is stopped")
                return
            kill_at = self._clock() + self._left(term) - self._margin / 2
            if abs(kill_at - sent) > 0.001:
                group.tell(kill_at)
                sent = kill_at
            await group.wait(min(TICK, self._margin))

    async def _end(self, group: Group, term: Term, interrupted: bool) -> int | None:
        """End every process of the group before the deadline; returns COMMAND's status."""
        own = group.status
        cause = "the wrapper stops" if self.stopping else "the term is over" if interrupted else "the watchdog ended"
        stopped = own is None and (interrupted or group.watchdog_ended)  # else COMMAND had ended, or did not start
        if own is not None:
            self._log(logging.INFO, term, f"COMMAND ended with status {own}")
        if stopped:
            self._log(logging.INFO, term, f"{cause}: SIGTERM to COMMAND")
        now, left = self._clock(), self._left(term)
        kill_at = now + min(self._grace, max(left - self._margin, 0.0))
        latest = min(kill_at + self._margin / 2, now + left)
        status = await group.end(kill_at, latest, lambda text: self._log(logging.WARNING, term, text))
        if stopped and status is not None:
            self._log(logging.INFO, term, f"COMMAND ended with status {status} because {cause}")
        return status

    def _group(self) -> Group:
        try:
            return Group(self._grace, self._clock, self._child_ended)
        except OSError as error:
            raise NotStarted(sys.executable, error.errno or errno.EAGAIN) from None

    def _warn(self, grant: float, term: Term) -> None:
        if not self._warned and self._grace > grant - self._margin:
            self._warned = True
            self._log(logging.WARNING, term, (
                f"--grace {self._grace:g} is longer than what is left of a grant, {grant - self._margin:.1f} s at most:"
                " SIGKILL comes before the grace has passed; the sidecar's GRANT_TTL is the length of a grant"
            ))  # fmt: skip

    def _log(self, level: int, term: Term, text: str) -> None:
        fields = {"lease": term.name, "token": term.token, "instance": term.holder}
        log.log(level, "%s, term %d: %s", term.name, term.token, text, extra=fields)


def _grace(arguments: Arguments) -> float:
    return GRACE if arguments.grace is None else arguments.grace


def _variables(term: Term) -> dict[str, str]:
    return {"LEASE_NAME": term.name, "LEASE_TOKEN": str(term.token), "LEASE_HOLDER": term.holder}


def _find(command: str) -> None:
    """Raise NotStarted if there is no such program, before a lease is acquired for it."""
    if shutil.which(command) is None:
        there = "/" in command and Path(command).exists()
        raise NotStarted(command, errno.EACCES if there else errno.ENOENT)


def _find_lease(url: str, lease: str) -> None:
    """Raise UsageError if the sidecar says that it has no such lease.

    A sidecar that does not answer is not an error, because it may start later. Another program may answer in its place.
    """
    leader_url = f"{url.rstrip('/')}/leader/{quote(lease, safe='')}"
    try:
        build_opener(ProxyHandler({})).open(leader_url, timeout=LOOKUP).close()
    except HTTPError as error:
        with error, suppress(OSError, ValueError, RecursionError, HTTPException):
            match json.loads(error.read(16_384)) if error.code == 404 else None:
                case {"leases": [*known]}:
                    names = one_line(", ".join(map(str, known)))
                    text = f"exec: the sidecar has no lease {one_line(lease)!r}: its LEASES are {names}"
                    raise UsageError(text) from None
    except (OSError, ValueError, HTTPException) as error:
        log.info("%s: no sidecar answers at %s yet (%s)", lease, url, type(error).__name__)


def _log_to_stderr(variables: Variables) -> None:
    """Log to standard error, because standard output belongs to COMMAND."""
    handler = LogOutput(sys.stderr, "standard error")
    handler.setFormatter(JsonLines() if variables.log_format == "json" else TextLines())
    logging.basicConfig(level=variables.log_level, handlers=[handler], force=True)
