"""The leader of each lease, as the sidecars report it at `GET /status`.

A request to `/status` does not take part in the election (a request to `/is-leader` does), and sends nothing to Redis.
`Watch` sends these requests, and `Board` keeps the leaders. The board does no I/O. Its times are seconds of a monotonic
clock.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

QUICK = 0.01
"""Seconds below which a hand-over is reported as 'within 10 ms', since `Watch` itself has a delay."""

PATIENCE = 0.4
"""Seconds without a leader before the board reports it."""

FIRST_PATIENCE = 5.0
"""Seconds before the board reports that the first leader is missing."""

LOOK_EVERY = 0.5
"""Seconds between two requests to a sidecar that logs nothing."""

Report = Callable[[str, str, bool], None]
"""Callback with the lease, a line for people, and true if the line reports a new leader."""


@dataclass
class _Lease:
    leader: str | None = None
    token: int = 0
    vacant_since: float | None = None
    vacancy_reported: bool = False
    holder: object = None
    ours: set[object] = field(default_factory=set)
    states: dict[str, tuple[str, str | None]] = field(default_factory=dict)


class Board:
    """Keeps the leader of each lease, and reports each change in one line."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._leases: dict[str, _Lease] = {}

    @property
    def leaders(self) -> dict[str, str | None]:
        """The task that leads each known lease; None without a leader."""
        return {name: lease.leader for name, lease in self._leases.items()}

    def seen(self, task: str, name: str, view: Mapping[str, Any], now: float) -> None:
        """Record a sidecar's view of a lease: `is_leader`, `holder`, `token`, `state` and `trouble`."""
        lease = self._leases.setdefault(name, _Lease(vacant_since=now))
        lease.states[task] = str(view.get("state")), view.get("trouble")
        lease.holder = view.get("holder")
        token = view.get("token")
        if view.get("is_leader") is True:
            lease.ours.add(lease.holder)
        if view.get("is_leader") is True and isinstance(token, int):
            if token >= lease.token and (lease.leader, lease.token) != (task, token):
                self._report(name, self._new_leader(lease, task, token, now), True)
                lease.leader, lease.token = task, token
                lease.vacant_since, lease.vacancy_reported = None, False
        elif lease.leader == task:
            self._lost(lease, now)

    def gone(self, task: str, now: float) -> None:
        """Record that the task's sidecar has exited. The task no longer leads."""
        for lease in self._leases.values():
            lease.states.pop(task, None)
            if lease.leader == task:
                self._lost(lease, now)

    def tick(self, now: float) -> None:
        """Report each lease that has had no leader for too long."""
        for name, lease in self._leases.items():
            patience = PATIENCE if lease.token else FIRST_PATIENCE
            if lease.vacant_since is None or lease.vacancy_reported or now - lease.vacant_since < patience:
                continue
            lease.vacancy_reported = True
            elsewhere = lease.holder is not None and lease.holder not in lease.ours
            self._report(name, _vacancy(lease.states.values(), str(lease.holder) if elsewhere else None), False)

    def _lost(self, lease: _Lease, now: float) -> None:
        lease.leader, lease.vacant_since, lease.vacancy_reported = None, now, False

    @staticmethod
    def _new_leader(lease: _Lease, task: str, token: int, now: float) -> str:
        if lease.token == 0:
            return f"{task} leads (token {token})"
        gap = now - lease.vacant_since if lease.vacant_since is not None else 0.0
        if token == lease.token:
            return f"{task} leads again, in the same term (token {token}), {gap:.2f} s later"
        line = f"{task} leads (token {token})"
        if lease.leader is not None:
            return f"{line}; {lease.leader} led until now"
        return f"{line}, {'within 10 ms' if gap < QUICK else f'after {gap:.2f} s without a leader'}"


class Watch:
    """Polls the sidecars of all tasks and updates the board.

    Args:
        addresses: the control address (`127.0.0.1:4040`) of each task's sidecar, by the task's label.
        board: the board to update.
    """

    def __init__(self, addresses: Mapping[str, str], board: Board) -> None:
        self._addresses = addresses
        self._board = board
        self._nudges = {task: asyncio.Event() for task in addresses}

    def nudge(self, task: str) -> None:
        """Poll at once: the task's sidecar has written to its log."""
        self._nudges[task].set()

    async def run(self) -> None:
        """Watch until cancelled."""
        timeout = aiohttp.ClientTimeout(total=1)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
            for task in self._addresses:
                group.create_task(self._look(session, task))

    async def _look(self, session: aiohttp.ClientSession, task: str) -> None:
        nudge = self._nudges[task]
        while True:
            nudge.clear()
            status: Any = None
            try:
                async with session.get(f"http://{self._addresses[task]}/status") as answer:
                    status = await answer.json()
            except (aiohttp.ClientError, TimeoutError, ValueError):
                pass  # the sidecar starts, stops or has exited; `gone` records its exit
            now = time.monotonic()
            leases = status.get("leases") if isinstance(status, dict) else None
            for name, view in leases.items() if isinstance(leases, dict) else ():
                if isinstance(view, dict):
                    self._board.seen(task, name, view, now)
            self._board.tick(now)
            try:
                async with asyncio.timeout(LOOK_EVERY):
                    await nudge.wait()
            except TimeoutError:
                continue


def _vacancy(states: Collection[tuple[str, str | None]], elsewhere: str | None) -> str:
    """Explain why no task of this run leads.

    Args:
        states: the state and the trouble of each task.
        elsewhere: the holder of the key if it is not in this run.
    """
    troubles: dict[str, str] = {}
    for state, trouble in states:
        troubles[state] = troubles.get(state) or trouble or ""
    if "following" in troubles and elsewhere is not None:
        return "; ".join(filter(None, (f"no task of this run leads: {elsewhere} holds the key", troubles["following"])))
    for state, reason in (
        ("disabled", "an operator has disabled it"),
        ("guarded", "the failover guard waits for one LEASE_TTL, since Redis has restarted"),
        ("disconnected", "Redis cannot be used"),
        ("draining", "its task is stopping"),
        ("following", "" if troubles.get("following") else "the holder has ended, and its key has not expired yet"),
        ("waiting", "no API asks for it"),
    ):
        if state in troubles:
            return f"nobody leads: {'; '.join(filter(None, (reason, troubles[state])))}"
    return "nobody leads"
