"""A model of a Redis server for one lease: its key, its fence, its clock, and the scripts of the calls.

Each script follows the Lua of `sidecar/scripts` line by line, with the effects of its commands. The differential test
compares every reply with the reply of a real server. Times are in the units of Redis: wall clock in µs, TTLs in ms.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

from sidecar.election.herd import MAX_DIRECT
from sidecar.protocol import Outcome

DAY = 86_400 * 1_000_000
"""Maximum time in µs by which a token may be ahead of the server's time.

After a token above this limit, every later token would be above it too.
"""

MOST_NOTES = 900
"""Maximum number of characters in the notes about other servers; above it, the oldest note is dropped."""

FEW_DIRECT, FEW_RELAYED = 4, 24
"""Maximum numbers of direct and of relayed watches. A release within either limit notifies all candidates."""


def far_ahead(token: int | None, now: int) -> bool:
    """Whether a token is so far ahead of the server's time that no later token is allowed."""
    return token is not None and token > now + DAY


@dataclass(slots=True)
class Fence:
    """The hash next to the key. A token that is a string is invalid: another program or a person wrote it."""

    token: int | str | None = None
    holder: str | None = None
    tenure: str | None = None
    run_id: str | None = None
    replid: str | None = None
    changed: str | None = None
    changed_at: int | None = None
    others: str | None = None
    beat: int | None = None
    recorded: int | None = None
    step_down: int | None = None


class Answer(NamedTuple):
    """The answer of a script: `left` in ms (-1 no TTL, -2 no key), `time` in µs, `wait` in ms."""

    outcome: Outcome
    holder: str | None
    token: int | str | None
    tenure: str | None
    left: int
    time: int
    wait: int
    guard: str


class RedisModel:
    """One database with one lease.

    `now` is the server's wall clock in µs. The caller sets it before each call, as `TIME` would report it. `touched`,
    `published` and `relayed` count what watches see: writes to the key, messages of releases to the direct watches, and
    messages to the relayed watches. `watches` is the number of direct and of relayed watches that the server reports;
    None if it may not report them. `appended` counts the entries of the history, which do not affect the election.
    `offset` rises with every write, like the server's replication offset.
    """

    __slots__ = (
        "_guard",
        "appended",
        "expires",
        "fence",
        "fence_is_hash",
        "info_allowed",
        "key_is_string",
        "late",
        "now",
        "offset",
        "promoted",
        "published",
        "relayed",
        "replid",
        "run_id",
        "started",
        "touched",
        "value",
        "watches",
    )

    def __init__(
        self, run_id: str, *, started: int, replid: str = "", promoted: bool = False, info_allowed: bool = True
    ) -> None:
        self.run_id = run_id
        self.replid = replid
        self.promoted = promoted  # the server was a replica before
        self.started = started  # s of the server's wall clock
        self.info_allowed = info_allowed
        self.now = started * 1_000_000
        self.value: str | None = None
        self.expires: int | None = None  # ms of the server's wall clock
        self.key_is_string = True
        self.fence = Fence()
        self.fence_is_hash = True
        self._guard = "off"
        self.late = 0  # ms for which an old primary may serve after a promotion: a setting of the candidates
        self.touched = 0
        self.published = 0
        self.relayed = 0
        self.watches: tuple[int, int] | None = None
        self.appended = 0
        self.offset = 0

    def copy_data(self, other: "RedisModel") -> None:
        """Copy the data of `other`, as an up-to-date replica has it."""
        self.value, self.expires, self.key_is_string = other.value, other.expires, other.key_is_string
        self.fence, self.fence_is_hash = replace(other.fence), other.fence_is_hash

    # Commands of an operator.

    def set(self, value: str, milliseconds: int | None) -> None:
        """`SET KEY value [PX milliseconds]`."""
        self.value, self.key_is_string = value, True
        self.expires = None if milliseconds is None else self.now // 1000 + milliseconds
        self._write_key()

    def delete(self) -> None:
        """`DEL KEY`."""
        self.value, self.expires, self.key_is_string = None, None, True
        self._write_key()

    def persist(self) -> None:
        """`PERSIST KEY`."""
        self.expire()
        if self.value is not None:
            self.expires = None
            self._write_key()

    def spoil_key(self) -> None:
        """`DEL KEY`, then `LPUSH KEY x`."""
        self.value, self.expires, self.key_is_string = "a list", None, False
        self._write_key()

    def spoil_fence(self, token: str | int) -> None:
        """`HSET fence:{KEY} token ...`."""
        self.fence.token = token
        self.offset += 1

    def step_down(self) -> int | None:
        """`step_down.lua`: ask the holder to give up its term.

        Returns the term's token; None if the key and the fence show no term.
        """
        self.expire()
        if not self.key_is_string or not self.fence_is_hash or not isinstance(self.fence.token, int):
            return None
        if self.value is None or self.value != self.fence.holder:
            return None
        self.fence.step_down = self.fence.token
        self.offset += 1
        return self.fence.token

    @property
    def fence_needs_repairing(self) -> bool:
        """Whether the fence allows no new term until an operator repairs it."""
        token = self.fence.token
        return not self.fence_is_hash or isinstance(token, str) or far_ahead(token, self.now)

    def repair_fence(self) -> bool:
        """`fence.lua`: while the lease is DISABLED, set the token of an unusable fence to the server's time."""
        self.expire()
        if not self.fence_needs_repairing or not self._is_disabled():
            return False
        if not self.fence_is_hash:
            self.fence, self.fence_is_hash = Fence(), True
        self.fence.token, self.fence.holder, self.fence.tenure = self.now, "", ""
        self.offset += 1
        return True

    def expire(self) -> None:
        """Delete the key if its time has passed."""
        if self.expires is not None and self.now // 1000 > self.expires:
            self.value, self.expires, self.key_is_string = None, None, True

    # The scripts.

    def acquire(
        self, instance: str, ttl: int, deadline: int, guarding: bool, tenure: str, replicated: bool = False
    ) -> Answer:
        """`acquire.lua`; `replicated` if replicas must confirm the term."""
        problem = self._read(deadline, guarding)
        if problem is not None:
            return self._answer(problem)
        wait = self._guard_wait(ttl, guarding)
        if self.value is not None and self.value != instance:
            return self._answer(self._held_otherwise(instance))
        if wait > 0:
            return self._answer(Outcome.GUARDED, wait)
        if self._ours(instance):
            if self.fence.tenure != tenure:
                self.fence.tenure = tenure
                self.offset += 1
            if self._stepping_down():
                if not 0 <= self._left() <= ttl:
                    self._expire_in(ttl)
                return self._answer(Outcome.STEPPING_DOWN)
            self._expire_in(ttl)
            self._vouch(guarding)
            return self._answer(Outcome.ADOPTED)
        self.fence.token = self._next_token()
        self.fence.holder = instance
        self.fence.tenure = tenure
        self._vouch(guarding)
        self.value = instance
        self._expire_in(ttl)
        self.fence.step_down = None
        self.appended += not replicated
        return self._answer(Outcome.ACQUIRED)

    def renew(
        self,
        instance: str,
        ttl: int,
        deadline: int,
        guarding: bool,
        token: int | None,
        tenure: str,
        floor: int,
        replicated: bool,
    ) -> Answer:
        """`renew.lua`; `replicated` if replicas must confirm the renewal."""
        problem = self._read(deadline, guarding)
        if problem is not None:
            return self._answer(problem)
        if not self._our_term(instance, token, tenure):
            self._guard_wait(ttl, guarding)
            return self._answer(self._held_otherwise(instance))
        if not floor <= self._left() <= ttl:
            self._expire_in(ttl)
        elif replicated:
            self.fence.beat = self.now  # WAIT needs a write
            self.offset += 1
        self._vouch(guarding)
        if replicated and self.fence.recorded != token:
            self.fence.recorded = token
            self.appended += 1
            self.offset += 1
        return self._answer(Outcome.STEPPING_DOWN if self._stepping_down() else Outcome.RENEWED)

    def release(self, instance: str, ttl: int, deadline: int, guarding: bool, token: int | None, tenure: str) -> Answer:
        """`release.lua`; a call without a token only looks."""
        problem = self._read(deadline, guarding)
        if problem is not None:
            return self._answer(problem)
        if not self._our_term(instance, token, tenure):
            self._guard_wait(ttl, guarding)
            return self._answer(self._held_otherwise(instance))
        self.delete()
        self.published += 1
        self.relayed += self.notifies_all
        self.appended += 1
        return self._answer(Outcome.RELEASED)

    def relay(self, instance: str, guarding: bool) -> Answer:
        """`relay.lua`, which has no deadline."""
        problem = self._read(self.now, guarding)
        if problem is not None:
            return self._answer(problem)
        self.relayed += self.value is None
        return self._answer(self._held_otherwise(instance))

    @property
    def notifies_all(self) -> bool:
        """Whether a release also notifies the candidates with a relayed watch."""
        return self.watches is None or self.watches[0] <= FEW_DIRECT or self.watches[1] <= FEW_RELAYED

    @property
    def asks_for_relays(self) -> bool:
        """Whether a release asks the candidates with a direct watch to relay it."""
        return self.watches is not None and (not self.notifies_all or self.watches[0] > MAX_DIRECT)

    # Parts of the scripts.

    def _read(self, deadline: int, guarding: bool) -> Outcome | None:
        self._guard = "-" if guarding else "off"
        if self.now > deadline:
            return Outcome.LATE
        self.expire()
        if not self.key_is_string:
            return Outcome.WRONG_TYPE
        token = self.fence.token
        if not self.fence_is_hash or isinstance(token, str):
            problem = Outcome.BAD_FENCE
        elif self._is_ahead(token):
            problem = Outcome.FENCE_AHEAD
        else:
            return None
        return Outcome.DISABLED if self._is_disabled() else problem

    def _is_ahead(self, token: int | None) -> bool:
        return far_ahead(token, self.now)

    def _answer(self, outcome: Outcome, wait: int = 0) -> Answer:
        if outcome is Outcome.LATE or outcome is Outcome.WRONG_TYPE:  # neither the key's value nor the fence was read
            return Answer(outcome, None, None, None, -2, self.now, wait, self._guard)
        token, tenure = (self.fence.token, self.fence.tenure) if self.fence_is_hash else (None, None)
        return Answer(outcome, self.value, token, tenure, self._left(), self.now, wait, self._guard)

    def _next_token(self) -> int:
        last = self.fence.token
        return max((last if isinstance(last, int) else 0) + 1, self.now)

    def _ours(self, instance: str) -> bool:
        return self.value == instance and self.fence.holder == instance and self.fence.token is not None

    def _our_term(self, instance: str, token: int | None, tenure: str) -> bool:
        return self._ours(instance) and self.fence.token == token and self.fence.tenure == tenure

    def _stepping_down(self) -> bool:
        return self.fence.token is not None and self.fence.step_down == self.fence.token

    def _held_otherwise(self, instance: str) -> Outcome:
        if self.value is None:
            return Outcome.VACANT
        if self.value == instance:
            return Outcome.SUPERSEDED
        return Outcome.DISABLED if self._is_disabled() else Outcome.HELD

    def _is_disabled(self) -> bool:
        return self.key_is_string and self.value is not None and self.value.upper() == "DISABLED"

    def _left(self) -> int:
        if self.value is None:
            return -2
        return -1 if self.expires is None else max(0, self.expires - self.now // 1000)

    def _expire_in(self, ttl: int) -> None:
        self.expires = self.now // 1000 + ttl
        self._write_key()

    def _write_key(self) -> None:
        self.touched += 1
        self.offset += 1

    def _identify(self, guarding: bool) -> bool:
        if guarding:
            self._guard = "on" if self.info_allowed else "unavailable"
        return guarding and self.info_allowed

    def _guard_wait(self, ttl: int, guarding: bool) -> int:
        if not self._identify(guarding):
            return 0
        fence = self.fence
        if fence.run_id == self.run_id and fence.replid in (None, self.replid):
            return 0
        if fence.run_id is None and fence.changed is None and not self.promoted:
            uptime = self.now // 1_000_000 - self.started
            return max(0, ttl + self.late - (uptime - 1) * 1000)
        return max(0, -((self.now - self._first_seen()) // 1000) + ttl + self.late)

    def _first_seen(self) -> int:
        fence, name = self.fence, self.run_id + self.replid
        seen = fence.changed_at if fence.changed == name else None
        if fence.changed is not None and fence.changed != name and fence.others:
            notes = dict(each.rsplit("=", 1) for each in fence.others.split(" "))
            seen = int(notes[name]) if name in notes else None
        if seen is not None and seen <= self.now:
            return seen
        if fence.changed is not None and fence.changed != name and fence.changed_at is not None:
            text = " ".join([f"{fence.changed}={fence.changed_at}", *([fence.others] if fence.others else [])])
            fence.others = text.rpartition(" ")[0] if len(text) > MOST_NOTES else text
        fence.changed, fence.changed_at = name, self.now
        self.offset += 1
        return self.now

    def _vouch(self, guarding: bool) -> None:
        fence = self.fence
        if self._identify(guarding) and (
            fence.run_id != self.run_id or fence.replid != self.replid or fence.changed is not None
        ):
            fence.run_id, fence.replid, fence.changed, fence.changed_at = self.run_id, self.replid, None, None
            fence.others = None
            self.offset += 1
