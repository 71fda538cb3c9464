"""Causes the faults of the Redis servers, for each kind of Redis."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from runtime.clock import elapsed
from tests.chaos.cluster_nodes import ClusterNodes
from tests.chaos.redis_nodes import RedisNodes, Unsettled
from tests.chaos.redis_pair import RedisPair
from tests.chaos.schedule import LEASES, Fault, Kind
from tests.chaos.sentinel_nodes import SentinelNodes

if TYPE_CHECKING:
    from tests.chaos.faults import Happening
    from tests.chaos.fleet import Fleet

SKIPPED = "skipped: "
"""Prefix of the note of a fault that was skipped."""
LAG = 1.2
"""Maximum lag of the replicas at a failover, in ttls."""


class RedisFaults:
    """Causes the faults of Redis in a fleet, and calls `report` at the start of each."""

    def __init__(self, fleet: "Fleet", report: "Callable[[Happening], None]") -> None:
        self._fleet = fleet
        self._report = report
        self._moving = asyncio.Lock()  # held during a fault that needs settled servers

    async def inflict(self, fault: Fault, happening: "Happening") -> None:
        """Cause the fault, and return at its end. If the fault is skipped, the note gives the reason."""
        redis = self._fleet.redis
        if fault.kind is Kind.STEP_CLOCK:
            self._step_clock(happening, fault.detail)
            return
        if isinstance(redis, RedisPair):
            await self._inflict_on_pair(redis, fault, happening)
            return
        if fault.kind is Kind.FREEZE_REDIS:
            await self._inflict_on_nodes(redis, fault, happening)
            return
        async with self._moving:
            try:
                await redis.wait_settled(2 * self._fleet.ttl)
                happening.began = elapsed()
                await self._inflict_on_nodes(redis, fault, happening)
            except Unsettled as reason:
                happening.note = f"{SKIPPED}{reason}"
                self._report(happening)

    async def _inflict_on_pair(self, redis: RedisPair, fault: Fault, happening: "Happening") -> None:
        match fault.kind:
            case Kind.FREEZE_REDIS:
                self._report(happening)
                await redis.freeze(fault.seconds)
            case Kind.RESTART_REDIS:
                self._report(happening)
                await redis.restart_empty(fault.seconds)
            case Kind.FAILOVER:
                await redis.fail_over(self._lag(fault, happening), fault.seconds / 3)
            case _:
                await self._isolate(redis, happening, fault.seconds, fault.detail)

    async def _inflict_on_nodes(self, redis: RedisNodes, fault: Fault, happening: "Happening") -> None:
        match fault.kind:
            case Kind.FREEZE_REDIS:
                self._report(happening)
                await redis.freeze(fault.seconds)
            case Kind.RESTART_REDIS:
                self._report(happening)
                await redis.restart_empty(fault.seconds)
            case Kind.FAILOVER:
                await redis.fail_over(self._lag(fault, happening), fault.seconds / 3)
            case Kind.OUTAGE:
                await self._outage(redis, fault, happening)
            case Kind.UNSEEN if isinstance(redis, SentinelNodes):
                leading = self._leading()
                happening.note = f"{', '.join(leading) or 'nobody'} cannot ask the sentinels"
                self._report(happening)
                async with redis.hidden_from(leading):
                    await redis.fail_over_by_hand()
                    with suppress(Unsettled):  # another fault, such as a freeze, may still last
                        await redis.wait_settled(redis.serves_on)
            case Kind.MIGRATE if isinstance(redis, ClusterNodes):
                self._report(happening)
                await redis.migrate(list(self._fleet.keys().values()), fault.seconds)
            case _:
                self._report(happening)
                await redis.fail_over_by_hand()

    def _lag(self, fault: Fault, happening: "Happening") -> float:
        lag = fault.detail * LAG * self._fleet.ttl
        happening.note = f"the replicas lag {lag:.2f} s"
        self._report(happening)
        return lag

    def _leading(self) -> list[str]:
        now = elapsed()
        return sorted({leader.task for lease in LEASES if (leader := self._fleet.seen.leader(lease, now))})

    async def _outage(self, redis: RedisNodes, fault: Fault, happening: "Happening") -> None:
        """Simulate the loss of a zone: the primary dies, and the leaders reach no server until it runs again."""
        cut: list[str] = []

        def killed() -> None:
            cut.extend(self._leading())
            happening.note += f", {', '.join(cut) or 'nobody'} cut off"
            for task in cut:
                redis.ways[task].black_hole()

        lag = self._lag(fault, happening)
        try:
            await redis.fail_over(lag, fault.seconds, killed)
        finally:
            for task in cut:
                redis.ways[task].flow()

    async def _isolate(self, redis: RedisPair, happening: "Happening", seconds: float, share: float) -> None:
        """Cut off the primary with the leading tasks and some of the other tasks."""
        leading = set(self._leading())
        others = [task for task in self._fleet.labels if task not in leading]
        staying = leading | set(others[: int(share * len(others))])
        happening.note = f"with {', '.join(sorted(staying)) or 'nobody'}"
        self._report(happening)
        await redis.isolate(seconds, staying)

    def _step_clock(self, happening: "Happening", share: float) -> None:
        """Step the clock alternately back and forward, so that the steps never add up to more than the margin."""
        clock = self._fleet.redis.clock
        if clock is None:
            happening.note = f"{SKIPPED}there is no C compiler"
        else:
            margin = self._fleet.ttl / 6
            step = clock.set_behind(0.0 if clock.behind else (0.3 + 0.5 * share) * margin)
            happening.note = f"{step:+.2f} s, margin {margin:.2f} s"
        self._report(happening)
