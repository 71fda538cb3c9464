"""The standing of symbols with a price source: which it has priced, which it refuses, and who is tried out next.

Pure rules; the clock is injected. `Standing` remembers, `Trials` is the queue of one question. A symbol that was priced
before never waits for one that was not.
"""

import heapq
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

FIRST_REFUSAL, LONGEST_REFUSAL = timedelta(hours=1), timedelta(days=1)
"""How long a refused symbol is not asked for. Each refusal in a row doubles it, up to a day: a symbol that is newly
listed is found within that."""
SILENCE = timedelta(minutes=5)
"""How long a symbol that the source accepts, but has no price for, is not asked for."""
FORGET_AFTER = timedelta(days=1)
"""How long a trial without a result is remembered."""
SMALL_CROWD = 32
"""Symbols of unknown standing that make a portfolio crowded; those with fewer share batches. A refused symbol weighs as
much: a portfolio without refused symbols is not mixed with one that has some."""
NO_LIMIT = 1_000_000
"""The size of the batches that a symbol may be in while none of them has failed."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A symbol that the source refused, so many times in a row, and when it is asked for again."""

    symbol: str
    refusals: int
    refused_at: datetime
    retry_at: datetime


Refusals: TypeAlias = Mapping[str, Refusal | None]
"""Changes by symbol: a refusal, or None where the symbol is refused no longer."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A symbol that was asked for without a result, and the most symbols of the next batch that it may be in."""

    most: int
    tried_at: datetime
    due_at: datetime


class Crowd(NamedTuple):
    """The portfolio with the fewest symbols of unknown standing, of those that hold the symbol."""

    size: int
    """The number of symbols of unknown standing that it holds, where refused ones count as `SMALL_CROWD` each."""
    portfolio: int
    """Its place among all portfolios."""


NO_CROWD = Crowd(1, 0)


class Entry(NamedTuple):
    """A symbol's place in the queue, by which entries are sorted."""

    refused_before: bool
    crowd: int
    """The number of binary digits of the crowd's size, in units of `SMALL_CROWD`: crowds of one size share."""
    minus_most: int
    tried_at: float
    portfolio: int
    symbol: str


class Trials:
    """The queue of one question's symbols of unknown standing.

    Symbols of portfolios with few such symbols come first, so that a thousand of one portfolio do not hold up the one
    of another. A batch holds symbols of crowds of one size. The rest of a batch that failed waits behind the others of
    its crowd, and is asked for in halves.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._heap = list(entries)
        heapq.heapify(self._heap)
        self._taken: dict[str, Entry] = {}

    def __len__(self) -> int:
        return len(self._heap)

    def next(self, most: int, longest: int, length: Callable[[str], int], *, untried: bool = False) -> list[str]:
        """The next batch: at most `most` symbols, of at most that length together; empty at the end.

        With `untried`, the first symbol that was in a failed batch is the end.
        """
        batch: list[str] = []
        left = longest
        while self._heap:
            first = self._heap[0]
            if untried and -first.minus_most < NO_LIMIT:
                break
            if batch and (
                self._taken[batch[0]][:3] != first[:3]
                or len(batch) >= min(most, -first.minus_most)
                or length(first.symbol) > left
            ):
                break
            self._taken[first.symbol] = heapq.heappop(self._heap)
            batch.append(first.symbol)
            left -= length(first.symbol)
        return batch

    def again(self, rest: Collection[str]) -> None:
        """Put the rest of a batch that failed back, behind the others."""
        for symbol in rest:
            heapq.heappush(self._heap, self._taken[symbol]._replace(minus_most=-_half(rest)))


class Standing:
    """What is known of each symbol. What changes is `changes()` until it is `kept` in the database."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._priced: set[str] = set()
        self._refusals: dict[str, Refusal] = {}
        self._trials: dict[str, Trial] = {}
        self._crowds: Mapping[str, Crowd] = {}
        self._unkept: dict[str, Refusal | None] = {}

    def remember(self, refusals: Iterable[Refusal], priced: Iterable[str]) -> None:
        """Take over what the database knows: the refusals that stand, and the symbols that have a price."""
        stored: dict[str, Refusal | None] = {refusal.symbol: refusal for refusal in refusals}
        stored |= self._unkept
        self._refusals = {symbol: refusal for symbol, refusal in stored.items() if refusal is not None}
        self._priced = (self._priced | set(priced)) - self._refusals.keys()
        oldest = self._now() - FORGET_AFTER
        self._trials = {symbol: trial for symbol, trial in self._trials.items() if trial.tried_at > oldest}

    def set_crowds(self, crowds: Mapping[str, Crowd]) -> None:
        """Set the order in which symbols of unknown standing are tried; see `Trials`."""
        self._crowds = crowds

    def unknown(self, symbols: Iterable[str]) -> set[str]:
        """Those that the source has not priced, refused ones included."""
        return {symbol for symbol in symbols if symbol not in self._priced}

    def refusing(self, symbols: Iterable[str]) -> set[str]:
        """Those that the source refused when it was asked last."""
        return {symbol for symbol in symbols if symbol in self._refusals}

    def priced(self, symbols: Iterable[str]) -> list[str]:
        """Those that the source has priced before, in alphabetical order."""
        return sorted(symbol for symbol in symbols if symbol in self._priced)

    def trials(self, symbols: Collection[str], *, silent: bool) -> Trials:
        """The queue of those of unknown standing; with `silent`, of those too that had no price minutes ago."""
        now = self._now()
        return Trials(
            entry for symbol in self.unknown(symbols) if (entry := self._entry(symbol, now, silent)) is not None
        )

    def answered(self, batch: Iterable[str], priced: Collection[str], *, silent: bool) -> None:
        """The source accepted the symbols of a batch, and priced some of them.

        With `silent`, the others are not asked for again for a while.
        """
        now = self._now()
        for symbol in batch:
            if self._refusals.pop(symbol, None) is not None:
                self._unkept[symbol] = None
            if symbol in priced:
                self._priced.add(symbol)
                self._trials.pop(symbol, None)
            elif symbol not in self._priced:
                self._trials[symbol] = Trial(NO_LIMIT, now, now + SILENCE if silent else now)

    def refused(self, symbol: str) -> bool:
        """The source refused the symbol itself; returns whether that is the first time."""
        now = self._now()
        before = self._refusals.get(symbol)
        refusals = 1 if before is None else before.refusals + 1
        pause = min(FIRST_REFUSAL * 2 ** min(refusals - 1, 10), LONGEST_REFUSAL)
        self._refusals[symbol] = self._unkept[symbol] = Refusal(symbol, refusals, now, now + pause)
        self._priced.discard(symbol)
        self._trials.pop(symbol, None)
        return before is None

    def failed(self, rest: Collection[str], *, alone: bool = False) -> None:
        """These are the rest of a batch that failed. A symbol that failed alone is not asked for again for a while."""
        now = self._now()
        due = now + SILENCE if alone else now
        for symbol in rest:
            self._trials[symbol] = Trial(_half(rest), now, due)

    def changes(self) -> Refusals:
        """What the database does not know yet: refusals, and None for symbols that are refused no longer."""
        return dict(self._unkept)

    def kept(self, changes: Refusals) -> None:
        """Those changes are committed."""
        for symbol, refusal in changes.items():
            if symbol in self._unkept and self._unkept[symbol] is refusal:
                del self._unkept[symbol]

    def _entry(self, symbol: str, now: datetime, silent: bool) -> Entry | None:
        """None: it is not its time yet. A time further ahead than any pause is of a clock that was wrong."""
        crowd = self._crowds.get(symbol, NO_CROWD)
        size = (crowd.size // SMALL_CROWD).bit_length()
        trial = self._trials.get(symbol, Trial(NO_LIMIT, datetime.min.replace(tzinfo=UTC), now))
        refusal = self._refusals.get(symbol)
        if refusal is not None:
            if now < refusal.retry_at <= now + LONGEST_REFUSAL or now < trial.due_at <= now + SILENCE:
                return None
            return Entry(True, size, -1, refusal.refused_at.timestamp(), crowd.portfolio, symbol)
        if not silent and now < trial.due_at <= now + SILENCE:
            return None
        tried_at = trial.tried_at.timestamp() if trial.tried_at.year > 1 else 0.0
        return Entry(False, size, -trial.most, tried_at, crowd.portfolio, symbol)


def _half(batch: Collection[str]) -> int:
    return (len(batch) + 1) // 2


@runtime_checkable
class HasStanding(Protocol):
    """A price source that tells symbols apart by their standing; who asks it keeps the standing in the database."""

    standing: Standing


def standing_of(source: object) -> Standing | None:
    """The standing that a price source keeps; None if it asks for all symbols alike."""
    return source.standing if isinstance(source, HasStanding) else None
