"""The history of a lease in Redis, read over a separate connection, so that no call of the election waits for it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from math import inf

from redis.exceptions import InvalidResponse

from runtime.escape import one_line
from sidecar.history import Term, entry_of, terms_of
from sidecar.redis.connection import RedisConnection
from sidecar.redis.failures import Failure, failure_of
from sidecar.redis.login import log_in
from sidecar.redis.store import fence_of, history_of
from sidecar.scripts import script

HISTORY = script("call", "history")
"""The text of the script. Its keys are `history_keys`, and its argument is `MOST_ENTRIES`."""
MOST_ENTRIES = 256
"""Maximum number of entries that are read.

A complete term has two entries, and a history shows 100 terms (`sidecar.history`). Some entries have no counterpart.
"""
READ_EVERY = 1.0
"""Minimum time between the starts of two reads of one lease's history, in seconds."""

_FACTS, _FIELDS = 2, 5


class HistoryUnavailable(Exception):
    """The history cannot be read; the text is one line for people."""


def history_keys(key: str) -> tuple[str, str, str]:
    """The keys of the script for a lease's key."""
    return key, fence_of(key), history_of(key)


def terms_in(answer: Sequence[object]) -> list[Term]:
    """The terms in the script's answer, newest first, with escaped texts. An entry that no script wrote is left out.

    Raises:
        InvalidResponse: the answer does not have the shape that `scripts/history.lua` returns.
    """
    if len(answer) < _FACTS or (len(answer) - _FACTS) % _FIELDS:
        raise InvalidResponse("the history does not have the expected shape")
    holder, token, *texts = [one_line(each) for each in answer]
    found = [entry_of(*texts[at : at + _FIELDS]) for at in range(0, len(texts), _FIELDS)]
    known = int(token) if token.isascii() and token.isdecimal() else None
    return terms_of([entry for entry in found if entry is not None], holder or None, known)


async def read_history(connect: Callable[[], RedisConnection], key: str, limit: float) -> list[Term]:
    """The terms of the lease with this key, newest first.

    Args:
        connect: makes a new, unconnected connection.
        key: the lease's key.
        limit: seconds that Redis may take.

    Raises:
        HistoryUnavailable: Redis cannot be reached, refuses, or gives a malformed answer.
    """
    connection = connect()
    try:
        async with asyncio.timeout(limit):
            await log_in(connection)
            keys = history_keys(key)
            await connection.send_command("EVAL", HISTORY, len(keys), *keys, MOST_ENTRIES)
            answer = await connection.read_response()
        if not isinstance(answer, list):
            raise InvalidResponse("the history is not a list")
        return terms_in(answer)
    except Exception as error:  # noqa: BLE001 - a malformed answer can make redis-py raise any error
        failure: Failure = failure_of(error, may_execute=False, keys=history_keys(key))
        raise HistoryUnavailable(failure.text) from None
    finally:
        await connection.disconnect(nowait=True)


class Histories:
    """The histories of a task's leases, each read from Redis at most once in `READ_EVERY` seconds.

    Args:
        connect: makes a new, unconnected connection.
        keys: the Redis key of each lease, by name.
        limit: seconds that Redis may take for one read.
        clock: `runtime.clock.elapsed`.
    """

    def __init__(
        self,
        connect: Callable[[], RedisConnection],
        keys: Mapping[str, str],
        *,
        limit: float,
        clock: Callable[[], float],
    ) -> None:
        self._connect = connect
        self._limit = limit
        self._clock = clock
        self._last = {name: _LastRead(key) for name, key in keys.items()}

    async def terms(self, name: str) -> list[Term]:
        """The terms of a lease, newest first, from a read that is under way, from the last read or from a new read.

        Raises:
            HistoryUnavailable: the read failed. This takes no longer than `limit`, for any number of readers.
        """
        last = self._last[name]
        if last.read is None or (last.read.done() and self._clock() >= last.began_at + READ_EVERY):
            last.began_at, last.read = self._clock(), asyncio.ensure_future(self._read(last.key))
        result = await asyncio.shield(last.read)  # a reader that leaves does not cancel the read
        if isinstance(result, HistoryUnavailable):
            raise HistoryUnavailable(str(result))
        return result

    async def _read(self, key: str) -> list[Term] | HistoryUnavailable:
        try:
            return await read_history(self._connect, key, self._limit)
        except HistoryUnavailable as error:
            return error


class _LastRead:
    """The last read of one lease's history. All readers that come during the read share its result."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.began_at = -inf
        self.read: asyncio.Task[list[Term] | HistoryUnavailable] | None = None
