"""`python -m service fence LEASE`: shows the database's side of a lease's fence, and mends a token that refuses all."""

import argparse
import asyncio
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runtime.escape import one_line
from service.commands.output import Parser
from service.database.connection import connect, store_errors
from service.database.fence_state import FenceState, read_fence, time_of
from service.database.sql import statement
from service.settings import Settings
from service.work.background import SCHEDULER_LEASE, TRACKER_LEASE
from sidecar.client import Leadership, LeaseClient, Term

LEASES = TRACKER_LEASE, SCHEDULER_LEASE
ANSWER_LIMIT = 5.0
"""Seconds that the sidecar may take to say where the lease stands."""
UNKNOWN = (None, "waiting", "disconnected")
"""What the sidecar may report before Redis has answered it."""
LOOK_EVERY = 0.1
"""Seconds between two looks at what the sidecar said last; it reports a change by itself."""

ABOUT = """Show the database's side of a lease's fence: the newest token, who has it, and since when.

A token more than a day ahead of the database's clock refuses every later term for good. It is set back to the
database's time, never below, if the lease is DISABLED meanwhile:

  python -m sidecar disable LEASE 3600
  python -m service fence LEASE                 the database's side first: it prints the token that it has then
  python -m sidecar fence LEASE --above TOKEN   then Redis's: the next term's token is larger
  python -m sidecar enable LEASE

The database does not know whether a lease is disabled. So the command asks the sidecar at SIDECAR_URL for one ttl, and
mends nothing unless each answer says so. Run it in a running task's API container, or as a task of its own."""


class NotMended(Exception):
    """The fence is as it was; the text is one line that says why."""


@dataclass(frozen=True, slots=True)
class FenceArguments:
    """What the command line asks for."""

    lease: str
    dry_run: bool
    ttl: float
    """Seconds for which the lease must be seen disabled."""


def parse(options: Sequence[str]) -> FenceArguments:
    """Read the command line; argparse ends the process, with status 2, if it makes no sense."""
    parser = Parser(
        prog="python -m service fence", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lease", choices=LEASES, metavar="LEASE", help=" or ".join(LEASES))
    parser.add_argument("--dry-run", action="store_true", help="show the fence, say what would be set, write nothing")
    parser.add_argument("--ttl", type=_seconds, default=30.0, metavar="S", help="the sidecars' LEASE_TTL (default: 30)")
    asked = parser.parse_args(options)
    return FenceArguments(asked.lease, asked.dry_run, asked.ttl)


async def run(asked: FenceArguments, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
    """Show the fence, and mend it if it has to be.

    Raises:
        NotMended: the lease is not disabled, or the fence changed meanwhile.
        StoreError: the database failed; the fence is as it was.
    """
    connection = await connect(settings.database_url.get_secret_value())
    try:
        with store_errors():
            state = await read_fence(connection, asked.lease)
        _print(_described(asked.lease, state))
        if state is None or not state.refuses_all:
            _print("nothing to mend")
            return
        if asked.dry_run:
            _print(f"would set the token to the database's time, now {state.now_token}; nothing was written")
            return
        _print(f"the lease must stay disabled for its ttl, {asked.ttl:g} s: waiting")
        await _stays_disabled(asked, settings.sidecar_url, clock)
        holder = f"mended:{socket.gethostname()}"
        with store_errors():
            token = await connection.fetchval(statement("mend_fence"), asked.lease, state.token, holder)
        if token is None:
            raise NotMended(f"lease {asked.lease}: not mended: the fence has another token by now")
        _print(f"mended: the token is {token} ({time_of(token)}); the next term's is larger")
        _print(f"to elect again: python -m sidecar fence {asked.lease} --above {token}")
        _print(f"then python -m sidecar enable {asked.lease}")
    finally:
        connection.terminate()


async def _stays_disabled(asked: FenceArguments, sidecar_url: str, clock: Callable[[], float]) -> None:
    """Return once the sidecar has reported for a whole ttl that the lease is disabled.

    Raises:
        NotMended: the sidecar does not answer, or reports another state.
    """
    async with LeaseClient(sidecar_url) as client:
        leadership = client.leadership(asked.lease)
        campaign = asyncio.create_task(leadership.run(_lead_nothing))  # to ask the sidecar is to campaign
        try:
            began = clock()
            while leadership.state in UNKNOWN and not campaign.done() and clock() < began + ANSWER_LIMIT:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_EVERY)
            began = clock()
            while clock() < began + asked.ttl:
                if not _is_disabled(leadership):
                    raise NotMended(_not_disabled(asked.lease, sidecar_url, leadership, was_elected=campaign.done()))
                await asyncio.sleep(LOOK_EVERY)
        finally:
            campaign.cancel()
            await asyncio.wait((campaign,))


def _is_disabled(leadership: Leadership) -> bool:
    """Whether the lease is disabled now; where Redis's fence is at fault too, only the holder shows it."""
    return leadership.state == "disabled" or (
        leadership.state == "following" and (leadership.holder or "").upper() == "DISABLED"
    )


async def _lead_nothing(_: Term) -> None:
    """The work of a command that must not lead: its end resigns the lease at once."""


def _not_disabled(lease: str, sidecar_url: str, leadership: Leadership, *, was_elected: bool) -> str:
    remedy = f"first python -m sidecar disable {lease} 3600"
    if was_elected:
        return f"lease {lease}: not mended: it is not disabled, nobody held it; {remedy}"
    if leadership.state is None:
        return f"lease {lease}: not mended: no sidecar answers at {sidecar_url} (SIDECAR_URL)"
    return (
        f"lease {lease}: not mended: it is not disabled but {one_line(leadership.state)}, "
        f"held by {one_line(leadership.holder or 'nobody')}; {remedy}"
    )


def _described(lease: str, state: FenceState | None) -> str:
    if state is None:
        return f"{lease}: no term has taken it up in the database"
    verdict = "more than a day ahead: every term is refused" if state.refuses_all else "not too far ahead"
    return (
        f"{lease}: token {state.token} ({time_of(state.token)}) of {one_line(state.holder)} "
        f"since {state.taken_at:%Y-%m-%d %H:%M:%S%z}\n"
        f"the database's time is {state.now_token} ({time_of(state.now_token)}): the token is {verdict}"
    )


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{one_line(repr(text), 80)} is not a number of seconds from 1 to 3600")
    return seconds
