"""The commands of a round trip: one EVAL for each call, and a WAIT if replicas must confirm the writes."""

from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.protocol import Call, Kind, ServerClock, Timings
from sidecar.scripts import script

SCRIPTS = {name: script("call", "prelude", name).encode() for name in ("acquire", "renew", "release", "relay")}
"""The text of each script."""
_SCRIPT_OF = {kind: str(kind) for kind in Kind} | {Kind.LOOK: "release"}

Command = tuple[bytes | str | int, ...]


@dataclass(frozen=True, slots=True)
class KeyedCall:
    """A call and the key of the lease that it is for."""

    key: str
    call: Call


class ScriptCalls:
    """Writes calls as commands; `RedisStore` explains the arguments."""

    def __init__(
        self, instance_id: str, timings: Timings, *, failover_guard: bool, min_replicas: int, late_demotion: float
    ) -> None:
        self._instance_id = instance_id
        self._timings = timings
        self._failover_guard = failover_guard
        self._min_replicas = min_replicas
        self._late_demotion = late_demotion

    def commands(self, calls: Sequence[KeyedCall], clock: ServerClock, *, asking: bool) -> list[Command]:
        """The commands for the calls; `asking` lets a node of a cluster answer for a slot that it is receiving."""
        before: list[Command] = [("ASKING",)] if asking else []
        commands = [command for keyed in calls for command in (*before, self._eval(keyed, clock))]
        if self._min_replicas:
            commands.append(("WAIT", self._min_replicas, int(self._timings.call_limit * 500)))
        return commands

    def _eval(self, keyed: KeyedCall, clock: ServerClock) -> Command:
        # EVAL, not EVALSHA: a few KB more per heartbeat, but no NOSCRIPT after a restart, a failover or SCRIPT FLUSH.
        call = keyed.call
        ttl = self._timings.ttl
        return (
            "EVAL",
            SCRIPTS[_SCRIPT_OF[call.kind]],
            2,
            keyed.key,
            fence_of(keyed.key),
            self._instance_id,
            int(ttl * 1000),
            clock.at(call.give_up_at, call.sent_at),
            int(self._failover_guard),
            "" if call.token is None else call.token,
            call.tenure,
            int((ttl - self._timings.heartbeat / 2) * 1000),
            int(self._min_replicas > 0),
            int(self._late_demotion * 1000),
            call.reason,
        )


def fence_of(key: str) -> str:
    """The key of a lease's fence.

    The hash tag puts the fence into the lease's slot. Because of the prefix `fence:`, a watch on the lease's key does
    not report changes of the fence.
    """
    return f"fence:{key}" if "{" in key else f"fence:{{{key}}}"


def history_of(key: str) -> str:
    """The key of a lease's history, a stream, named like the fence. The scripts derive the same name."""
    return f"history:{fence_of(key).removeprefix('fence:')}"
