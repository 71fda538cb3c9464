"""`python -m sidecar leaders`: the holder of each lease, its remaining time, the last token, and what is wrong."""

from collections.abc import Mapping
from typing import Any

from sidecar.commands.connection import CommandRedis
from sidecar.commands.layout import Layout
from sidecar.commands.look import Look, document, look
from sidecar.commands.report import Report

HEAD = ("lease", "holder", "left, s", "token")
"""Titles of the table's columns."""


async def leaders(redis: CommandRedis, keys: Mapping[str, str], layout: Layout) -> Report:
    """Look at every lease once."""
    seen = {lease: await look(redis, key) for lease, key in keys.items()}
    rows = [HEAD, *(row(lease, each, time_left(each.left)) for lease, each in seen.items())]
    notes = [line for lease, each in seen.items() for note in notes_on(lease, each) for line in layout.wrapped(note)]
    answer: dict[str, Any] = {"leases": {lease: {"key": keys[lease], **document(each)} for lease, each in seen.items()}}
    return Report([*layout.table(rows), *notes], answer)


def row(lease: str, seen: Look, left: str) -> tuple[str, str, str, str]:
    """A lease's line of the table."""
    holder = {"wrong type": "?", "vacant": "nobody"}.get(seen.word, seen.holder)
    return lease, holder or "an empty value", left, seen.token or "-"


def time_left(left: int) -> str:
    """Milliseconds as seconds for the table; `-` without a time limit."""
    if left < 0:
        return "-"
    return f"{left / 1000:.1f}" if left < 100_000 else f"{left / 1000:.0f}"


def notes_on(lease: str, seen: Look) -> list[str]:
    """Lines to add to the table: who disabled the lease, a step-down, facts about the server, and what is wrong."""
    notes = [f"{lease}: {seen.disable}"] if seen.disable else []
    if seen.asked_to_step_down:
        notes.append(f"{lease}: {seen.holder} was asked to step down")
    if seen.word == "vacant" and seen.server_changed:
        notes.append(f"{lease}: the Redis server has changed, so the failover guard may delay the next term")
    if seen.read_only:
        notes.append(f"{lease}: this Redis is a read-only replica: no term can begin here")
    if seen.trouble:
        notes.append(f"{lease}: {seen.trouble}")
        if seen.problem != "wrong_type":
            notes.append(f"  python -m sidecar fence {lease} repairs it")
    return notes
