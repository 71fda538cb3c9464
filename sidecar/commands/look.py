"""One lease as Redis has it: its holder, its fence, and who disabled it."""

from typing import Any, NamedTuple

from runtime.escape import one_line
from sidecar.commands.connection import MALFORMED, CommandError, CommandRedis
from sidecar.redis.replies import LIMIT, bounded
from sidecar.redis.store import fence_of
from sidecar.scripts import script

PROBLEMS = {
    "wrong_type": "the key is not a string: somebody must delete it",
    "bad_fence": "the fence is not a hash with a whole number for its token: every term is refused",
    "fence_ahead": "the token is more than a day ahead of Redis's clock: every term is refused",
}
"""Descriptions, for people, of the problems that the scripts report."""

SAME_END = 1_000
"""Maximum difference, in ms, between the expiry of a DISABLED key and the end that the fence stores with the reason."""

LONGEST_SHOWN = 240
"""Limit of a shown reason, in characters: above the limit of `disable`, so that no reason from `disable` is cut."""

NO_KEY = -2
"""Value of `Look.left` if nobody holds the key; -1 stands for a key without a time limit."""

LATEST = 10**17
"""Limit of the server's time, in µs: the year 5138. `datetime` has no times after the year 9999."""

FIXED = ("", 1, 2**53, 0, "", "")
"""Arguments of `scripts/prelude.lua` for a script that concerns no term of a sidecar: no id, and no deadline."""

_SCRIPT = script("call", "prelude", "fence")


class Look(NamedTuple):
    """The answer of `scripts/fence.lua`, with escaped texts; `left` is in ms, times and tokens are in µs."""

    done: str
    problem: str
    holder: str
    left: int
    now: int
    token: str
    token_holder: str
    target: int
    state: str
    disabled_by: str
    reason: str
    asked_to_step_down: bool
    server_changed: bool
    read_only: bool

    @property
    def held(self) -> str:
        """Who holds the key, and for how long, for people."""
        if self.problem == "wrong_type":
            return "the key is not a string"
        if self.left == NO_KEY:
            return "nobody holds the key"
        return f"{self.holder or 'an empty value'} holds the key " + (
            f"for {self.left / 1000:.1f} s more" if self.left >= 0 else "without a time limit"
        )

    @property
    def is_disabled(self) -> bool:
        """Whether an operator has disabled the lease."""
        return self.holder.upper() == "DISABLED"

    @property
    def is_term(self) -> bool:
        """Whether the holder leads under the token of the fence, so that an operator can ask for a step-down."""
        return self.left != NO_KEY and not self.is_disabled and self.token_holder == self.holder != ""

    @property
    def word(self) -> str:
        """`held`, `vacant`, `disabled` or `wrong type`."""
        if self.problem == "wrong_type":
            return "wrong type"
        if self.left == NO_KEY:
            return "vacant"
        return "disabled" if self.is_disabled else "held"

    @property
    def trouble(self) -> str | None:
        """What is wrong with the key or the fence, for people."""
        return PROBLEMS.get(self.problem)

    @property
    def disable(self) -> str | None:
        """Who disabled the lease and why, for people; None if the fence does not record it."""
        if not self.disabled_by:
            return None
        return f"disabled by {self.disabled_by}" + (f": {self.reason}" if self.reason else "")


async def look(redis: CommandRedis, key: str, *, least: int | None = None, state: str = "") -> Look:
    """Look at a lease and its fence; with the `state` of an earlier look, repair the fence if nothing has changed.

    Args:
        redis: the connection.
        key: the lease's key.
        least: the minimum for the fence's token, in µs.
        state: `Look.state` of the earlier look.

    Raises:
        CommandError: Redis refuses, or does not answer.
    """
    answer = await redis.run_script(_SCRIPT, (key, fence_of(key)), *FIXED, "" if least is None else least, state)
    return parse(answer)


def parse(answer: list[str]) -> Look:
    """The look in the answer of the script.

    Raises:
        CommandError: the answer does not have the expected shape.
    """
    try:
        done, problem, holder, left, now, token, token_holder, target, state, *notes = answer
        by, reason, ends, step_down, changed, read_only = notes
        remaining, time = bounded(left, -2, LIMIT), bounded(now, 0, LATEST)
        noted = holder.upper() == "DISABLED" and _is_of_this_disable(ends, time // 1000 + remaining, remaining)
        return Look(
            done, problem, one_line(holder), remaining, time, one_line(token, 64), one_line(token_holder),
            int(target), state, one_line(by) if noted else "", one_line(reason, LONGEST_SHOWN) if noted else "",
            asked_to_step_down=bool(step_down) and token_holder == holder != "", server_changed=bool(changed),
            read_only=bool(read_only),
        )  # fmt: skip
    except ValueError:
        raise CommandError(MALFORMED) from None


def document(seen: Look, left: int | None = None) -> dict[str, Any]:
    """The look for `--json`.

    Args:
        seen: the look.
        left: the remaining time of the key by now, in ms; by default, the time in the look.
    """
    left = seen.left if left is None else left
    return {
        "state": seen.word,
        "holder": seen.holder if seen.word in ("held", "disabled") else None,
        "remaining": left / 1000 if left >= 0 else None,
        "token": int(seen.token) if seen.token.isdecimal() else None,
        "disabled_by": seen.disabled_by or None,
        "reason": seen.reason or None,
        "asked_to_step_down": seen.asked_to_step_down,
        "problem": seen.trouble,
    }


def _is_of_this_disable(noted: str, ends: int, left: int) -> bool:
    return left >= 0 and noted.isdecimal() and abs(int(noted) - ends) <= SAME_END
