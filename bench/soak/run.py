"""One soak: the load on a fleet for some minutes, and the observations."""

import asyncio
import random
from collections.abc import Coroutine, Sequence
from pathlib import Path

from bench.report import progress
from bench.soak.fleet import LABELS, Fleet
from bench.soak.handovers import HandOvers, Histories, epoch_ms, histories
from bench.soak.judge import Observed
from bench.soak.leads import Causes
from bench.soak.logs import read_log
from bench.soak.machine import Machine
from bench.soak.planted import LEAD, PLANTS
from bench.soak.samples import Sampler
from bench.soak.visitors import Visitors, Visits
from ops.local.server import ServerError
from runtime.clock import elapsed

LED_WITHIN = 60.0
"""Timeout for the first leaders, in seconds: on a new Redis the failover guard waits for one ttl."""


async def soak(folder: Path, minutes: float, plants: Sequence[str] = ()) -> Observed:
    """Run a soak with data and logs under `folder`, which must be empty.

    Args:
        folder: the folder.
        minutes: the duration, without the start and the end.
        plants: faults of `bench.soak.planted`, and `lead`, which deletes the keys of leases.

    Raises:
        ServerError: a server or a task did not start.
    """
    fleet = Fleet(folder, [plant for plant in plants if plant in PLANTS])
    observed = None
    async with fleet.running(), histories(fleet) as history:
        if all([await fleet.steady(label) for label in LABELS]) and await _led(history):
            observed = await _observe(fleet, history, minutes, plants)
    if observed is None:  # raised here, since the task group would wrap the error
        raise ServerError(f"a task is not healthy, or a lease has no leader; the logs are in {fleet.logs}")
    return observed


async def _observe(fleet: Fleet, history: Histories, minutes: float, plants: Sequence[str]) -> Observed:
    """Put the load on the fleet."""
    began_at, visits = epoch_ms(), Visits()
    machine = Machine(fleet.pids, epoch_ms)
    sampler, hand_overs = Sampler(fleet, elapsed()), HandOvers(fleet, Causes(standstills=machine.standstills))
    works: list[Coroutine[None, None, object]] = [
        sampler.run(),
        history.run(),
        hand_overs.restart_now_and_then(),
        machine.run(),
        *(Visitors(fleet, label, visits, random.Random(label)).run() for label in LABELS),
    ]
    if LEAD in plants:
        works.append(history.delete_keys())
    await _load(60 * minutes, works, hand_overs, visits)
    await history.try_to_read()
    ended_at = epoch_ms()
    lines = [line for path in fleet.log_files() for line in read_log(path)]
    return Observed(
        minutes,
        sampler.lives,
        history.entries,
        hand_overs.causes,
        hand_overs.restarts,
        [text for at, text in hand_overs.problems if not hand_overs.causes.stood_still(at)] + history.problems,
        visits,
        [line for line in lines if began_at <= line.at <= ended_at or not line.at],
    )


async def _led(history: Histories) -> bool:
    """Wait until each lease has had a leader; returns False after the timeout."""
    deadline = elapsed() + LED_WITHIN
    while not all(history.entries.values()):
        if elapsed() > deadline:
            return False
        await asyncio.sleep(0.1)
        await history.try_to_read()
    return True


async def _load(
    seconds: float, works: Sequence[Coroutine[None, None, object]], hand_overs: HandOvers, visits: Visits
) -> None:
    """Run the coroutines and move the leases for `seconds`, with a progress bar."""
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(work) for work in works]
        moving = group.create_task(hand_overs.step_down_each_second())
        with progress(seconds, "soak", "s") as bar:
            bar.bar_format = "{desc}: {percentage:3.0f}% |{bar}| {n:.0f} of {total:.0f} s{postfix}"
            ends = elapsed() + seconds
            while (left := ends - elapsed()) > 0:
                await asyncio.sleep(min(1.0, left))
                bar.set_postfix({"hand-overs": hand_overs.asked, "streams": visits.streams}, refresh=False)
                bar.update(min(1.0, left))
        hand_overs.stopping.set()
        await moving
        for work in running:
            work.cancel()
