"""Who leads each lease, as the sidecars' `GET /status` tells.

That is to look without taking part (to ask `/is-leader` is to campaign), and costs Redis nothing. The board is pure;
its times are seconds of any clock that does not step.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

QUICK = 0.01
"""A hand-over below this is told as 'within 10 ms': a finer figure would be this watch's own delay."""

PATIENCE = 0.4
"""For how long, in seconds, nobody may lead before it is told."""

FIRST_PATIENCE = 5.0
"""The same before the first leader."""

LOOK_EVERY = 0.5
"""Seconds between two looks at a sidecar that says nothing."""

Tell = Callable[[str, str, bool], None]
"""Is given the lease, a line, and whether the line tells of a new leader."""


@dataclass
class _Lease:
    leader: str | None = None
    token: int = 0
    vacant_since: float | None = None
    vacancy_told: bool = False
    holder: object = None
    ours: set[object] = field(default_factory=set)
    states: dict[str, str] = field(default_factory=dict)


class Board:
    """What has been seen of the leases, and the lines that tell of changes."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._leases: dict[str, _Lease] = {}

    @property
    def leaders(self) -> dict[str, str | None]:
        """Which task leads each lease that has been heard of."""
        return {name: lease.leader for name, lease in self._leases.items()}

    def seen(self, task: str, name: str, view: Mapping[str, Any], now: float) -> None:
        """A task's sidecar has told its view of a lease: `is_leader`, `holder`, `token` and `state`."""
        lease = self._leases.setdefault(name, _Lease(vacant_since=now))
        lease.states[task] = str(view.get("state"))
        lease.holder = view.get("holder")
        token = view.get("token")
        if view.get("is_leader") is True:
            lease.ours.add(lease.holder)
        if view.get("is_leader") is True and isinstance(token, int):
            if token >= lease.token and (lease.leader, lease.token) != (task, token):
                self._tell(name, self._new_leader(lease, task, token, now), True)
                lease.leader, lease.token = task, token
                lease.vacant_since, lease.vacancy_told = None, False
        elif lease.leader == task:
            self._lost(lease, now)

    def gone(self, task: str, now: float) -> None:
        """A container of the task has exited: it does no work as a leader any more."""
        for lease in self._leases.values():
            lease.states.pop(task, None)
            if lease.leader == task:
                self._lost(lease, now)

    def tick(self, now: float) -> None:
        """Tell what has gone on for too long."""
        for name, lease in self._leases.items():
            patience = PATIENCE if lease.token else FIRST_PATIENCE
            if lease.vacant_since is None or lease.vacancy_told or now - lease.vacant_since < patience:
                continue
            lease.vacancy_told = True
            elsewhere = lease.holder is not None and lease.holder not in lease.ours
            self._tell(name, _vacancy(set(lease.states.values()), str(lease.holder) if elsewhere else None), False)

    def _lost(self, lease: _Lease, now: float) -> None:
        lease.leader, lease.vacant_since, lease.vacancy_told = None, now, False

    @staticmethod
    def _new_leader(lease: _Lease, task: str, token: int, now: float) -> str:
        if lease.token == 0:
            return f"{task} leads (token {token})"
        gap = now - lease.vacant_since if lease.vacant_since is not None else 0.0
        if token == lease.token:
            return f"{task} leads again, in the same term (token {token}), {gap:.2f} s later"
        line = f"{task} leads (token {token})"
        if lease.leader is not None:
            return f"{line}; {lease.leader} did until now"
        return f"{line}, {'within 10 ms' if gap < QUICK else f'after {gap:.2f} s without a leader'}"


class Watch:
    """Looks at the sidecars of all tasks and keeps the board; a look costs no command in Redis.

    Args:
        addresses: the control address of each task's sidecar, `127.0.0.1:4040`, by the task's label.
        board: is kept up to date.
    """

    def __init__(self, addresses: Mapping[str, str], board: Board) -> None:
        self._addresses = addresses
        self._board = board
        self._nudges = {task: asyncio.Event() for task in addresses}

    def nudge(self, task: str) -> None:
        """Look at once: the task's sidecar has said something."""
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
                pass  # it starts, it stops, or it is gone: its exit is told elsewhere
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


def _vacancy(states: set[str], elsewhere: str | None) -> str:
    """Why no task of this run leads: by the states that they are in, and the holder if that is none of them."""
    if "following" in states and elsewhere is not None:
        return f"no task of this run leads: {elsewhere} holds the key"
    for state, reason in (
        ("disabled", "an operator has disabled it"),
        ("guarded", "the failover guard waits out one LEASE_TTL, since Redis was started anew"),
        ("disconnected", "Redis does not answer"),
        ("draining", "its task is stopping"),
        ("following", "the key outlives its holder until it expires"),
        ("waiting", "no API asks for it"),
    ):
        if state in states:
            return f"nobody leads: {reason}"
    return "nobody leads"
