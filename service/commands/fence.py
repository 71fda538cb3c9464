"""`python -m service fence LEASE`: shows a lease's fence in the database, and repairs one that refuses all terms."""

import argparse
import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runtime.escape import one_line
from service.commands.output import Parser, print_line
from service.database.connection import connect, store_errors
from service.database.fence_state import FenceState, read_fence, time_of
from service.database.sql import statement
from service.settings import Settings
from service.work.background import SCHEDULER_LEASE, TRACKER_LEASE
from sidecar.client import Leadership, LeaseClient, Term

LEASES = TRACKER_LEASE, SCHEDULER_LEASE
ANSWER_LIMIT = 5.0
"""Limit for the sidecar to report the lease's state, in seconds."""
NOT_ANSWERED_YET = (None, "waiting", "disconnected")
"""States of a lease before Redis has answered the sidecar; None before the sidecar has answered."""
POLL_INTERVAL = 0.1
"""Time between two checks of the sidecar's last report, in seconds."""

ABOUT = """Show a lease's fence in the database: the newest token, its holder, and since when.

A token more than a day ahead of the database's clock refuses every later term. This command sets it back to the
database's time and no further, while the lease is DISABLED:

  python -m sidecar disable LEASE 3600
  python -m service fence LEASE                 repairs the fence in the database, and prints its new TOKEN
  python -m sidecar fence LEASE --above TOKEN   repairs the fence in Redis: the next term's token is larger
  python -m sidecar enable LEASE

The database does not record whether a lease is disabled. For one ttl the command asks the sidecar at SIDECAR_URL, and
repairs the fence only if every answer reports the lease as disabled. Run it in a running task's API container, or as
a one-off task."""


class NotRepaired(Exception):
    """The fence was not changed. The text is one line with the reason."""


@dataclass(frozen=True, slots=True)
class FenceArguments:
    """The arguments of the command."""

    lease: str
    dry_run: bool
    ttl: float
    """Seconds for which the lease must be disabled."""


def parse(options: Sequence[str]) -> FenceArguments:
    """Read the command line. argparse ends the process with status 2 if it is invalid."""
    parser = Parser(
        prog="python -m service fence", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lease", choices=LEASES, metavar="LEASE", help=" or ".join(LEASES))
    parser.add_argument("--dry-run", action="store_true", help="print what would be set, and write nothing")
    parser.add_argument("--ttl", type=_seconds, default=30.0, metavar="S", help="the sidecars' LEASE_TTL (default: 30)")
    arguments = parser.parse_args(options)
    return FenceArguments(arguments.lease, arguments.dry_run, arguments.ttl)


async def run(arguments: FenceArguments, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
    """Show the fence, and repair it if it refuses all terms.

    Raises:
        NotRepaired: the lease is not disabled, the sidecar does not answer, or the fence changed meanwhile.
        StoreError: the database failed, and the fence was not changed.
    """
    connection = await connect(settings.database_url.get_secret_value())
    try:
        with store_errors():
            state = await read_fence(connection, arguments.lease)
        print_line(_described(arguments.lease, state))
        if state is None or not state.refuses_all:
            print_line("nothing to repair")
            return
        if arguments.dry_run:
            print_line(f"would set the token to the database's time, now {state.now_token}; nothing was written")
            return
        print_line(f"waiting for {arguments.ttl:g} s, the ttl, in which the lease must stay disabled")
        await _stays_disabled(arguments, settings.sidecar_url, clock)
        holder = f"repaired:{socket.gethostname()}"
        with store_errors():
            token = await connection.fetchval(statement("repair_fence"), arguments.lease, state.token, holder)
        if token is None:
            raise NotRepaired(f"lease {arguments.lease}: not repaired: the fence has another token now")
        print_line(f"repaired: the token is {token} ({time_of(token)}); the next term's token is larger")
        print_line(f"to elect again: python -m sidecar fence {arguments.lease} --above {token}")
        print_line(f"then python -m sidecar enable {arguments.lease}")
    finally:
        connection.terminate()


async def _stays_disabled(arguments: FenceArguments, sidecar_url: str, clock: Callable[[], float]) -> None:
    """Wait until the sidecar has reported for a whole ttl that the lease is disabled.

    Raises:
        NotRepaired: the sidecar does not answer, or reports another state.
    """
    async with LeaseClient(sidecar_url) as client:
        leadership = client.leadership(arguments.lease)
        campaign = asyncio.create_task(leadership.run(_no_work))  # the client asks the sidecar only while it campaigns
        try:
            began = clock()
            while leadership.state in NOT_ANSWERED_YET and not campaign.done() and clock() < began + ANSWER_LIMIT:  # noqa: ASYNC110 - leadership sets no event
                await asyncio.sleep(POLL_INTERVAL)
            began = clock()
            while clock() < began + arguments.ttl:
                if not _is_disabled(leadership):
                    raise NotRepaired(
                        _not_disabled(arguments.lease, sidecar_url, leadership, was_elected=campaign.done())
                    )
                await asyncio.sleep(POLL_INTERVAL)
        finally:
            campaign.cancel()
            await asyncio.wait((campaign,))


def _is_disabled(leadership: Leadership) -> bool:
    """Whether the lease is disabled now.

    If Redis executes a call of the sidecar too late, the call reads nothing and the state is `following`. Then only the
    last known holder, DISABLED, shows that the lease is disabled.
    """
    return leadership.state == "disabled" or (
        leadership.state == "following" and (leadership.holder or "").upper() == "DISABLED"
    )


async def _no_work(_: Term) -> None:
    """Work that ends at once, so that the lease is resigned: this command must not lead."""


def _not_disabled(lease: str, sidecar_url: str, leadership: Leadership, *, was_elected: bool) -> str:
    remedy = f"first run python -m sidecar disable {lease} 3600"
    if was_elected:
        return f"lease {lease}: not repaired: the lease is not disabled, and no task held it; {remedy}"
    if leadership.state is None:
        return f"lease {lease}: not repaired: no sidecar answers at {sidecar_url} (SIDECAR_URL)"
    return (
        f"lease {lease}: not repaired: the lease is not disabled but {one_line(leadership.state)}, "
        f"held by {one_line(leadership.holder or 'nobody')}; {remedy}"
    )


def _described(lease: str, state: FenceState | None) -> str:
    if state is None:
        return f"{lease}: no term has claimed the fence in the database"
    verdict = "more than a day ahead: every term is refused" if state.refuses_all else "not too far ahead"
    return (
        f"{lease}: token {state.token} ({time_of(state.token)}) of {one_line(state.holder)} "
        f"since {state.taken_at:%Y-%m-%d %H:%M:%S%z}\n"
        f"the database's time is {state.now_token} ({time_of(state.now_token)}): the token is {verdict}"
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{one_line(repr(text), 80)} is not a number of seconds from 1 to 3600")
    return seconds
