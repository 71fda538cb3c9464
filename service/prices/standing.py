"""The standing that each symbol has with a price source, and the order of the trials.

A symbol is either priced or unknown. A refused symbol counts as unknown too. A trial is a request for symbols that the
source has not priced before. A symbol that was priced before never waits for a trial.
"""

import heapq
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

FIRST_REFUSAL, LONGEST_REFUSAL = timedelta(hours=1), timedelta(days=1)
"""Time until a refused symbol is asked for again. The time doubles with each consecutive refusal, up to a day. So a
newly listed symbol is found within a day."""
NO_PRICE_PAUSE = timedelta(minutes=5)
"""Time until a symbol is asked for again after an answer without its price, or after a failed request for it alone."""
TRIAL_LIFETIME = timedelta(days=1)
"""Time for which a trial without a result is remembered."""
SMALL_CROWD = 32
"""Number of symbols of unknown standing at which a portfolio counts as crowded.

Symbols of less crowded portfolios share batches. A refused symbol counts as this many symbols, so that every portfolio
with a refused symbol counts as crowded.
"""
NO_LIMIT = 1_000_000
"""Maximum batch size for a symbol that was in no failed batch."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A symbol that the source refused, the number of consecutive refusals, and when it is asked for again."""

    symbol: str
    refusals: int
    refused_at: datetime
    retry_at: datetime


Refusals: TypeAlias = Mapping[str, Refusal | None]
"""Changes by symbol: a refusal, or None if the symbol is no longer refused."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial without a result: its time, the time of the symbol's next trial, and that trial's maximum batch size."""

    most: int
    tried_at: datetime
    due_at: datetime


class Crowd(NamedTuple):
    """The portfolio with the fewest symbols of unknown standing, among the portfolios that hold a given symbol."""

    size: int
    """Number of symbols of unknown standing that the portfolio holds. A refused symbol counts as `SMALL_CROWD`."""
    portfolio: int
    """Index of the portfolio in the book."""


NO_CROWD = Crowd(1, 0)


class Entry(NamedTuple):
    """A symbol's place in the queue. Entries are sorted by these fields."""

    refused_before: bool
    crowd: int
    """Bit length of the crowd's size in units of `SMALL_CROWD`. A batch has only symbols with the same bit length."""
    negative_limit: int
    tried_at: float
    portfolio: int
    symbol: str


class Trials:
    """The queue of one query's symbols of unknown standing.

    Symbols of portfolios with few such symbols come first, so that a thousand symbols of one portfolio do not delay the
    single symbol of another. A batch holds symbols of crowds of similar size. The rest of a failed batch goes behind
    the other symbols with crowds of similar size, and is tried in batches of at most half the size of the rest.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._heap = list(entries)
        heapq.heapify(self._heap)
        self._taken: dict[str, Entry] = {}

    def __len__(self) -> int:
        return len(self._heap)

    def next(self, most: int, longest: int, length: Callable[[str], int]) -> list[str]:
        """The next batch: at most `most` symbols, together at most `longest` characters long; empty at the end."""
        batch: list[str] = []
        left = longest
        while self._heap:
            first = self._heap[0]
            if batch and (
                self._taken[batch[0]][:3] != first[:3]
                or len(batch) >= min(most, -first.negative_limit)
                or length(first.symbol) > left
            ):
                break
            self._taken[first.symbol] = heapq.heappop(self._heap)
            batch.append(first.symbol)
            left -= length(first.symbol)
        return batch

    def take_untried(self, most: int, longest: int, length: Callable[[str], int]) -> list[list[str]]:
        """Take all symbols that were neither refused nor in a failed batch, in batches like those of `next`."""
        rest = [entry for entry in self._heap if -entry.negative_limit < NO_LIMIT]
        self._heap = [entry for entry in self._heap if -entry.negative_limit == NO_LIMIT]
        heapq.heapify(self._heap)
        batches = []
        while batch := self.next(most, longest, length):
            batches.append(batch)
        self._heap = rest
        heapq.heapify(self._heap)
        return batches

    def gave(self, batch: Sequence[str]) -> bool:
        """Whether the batch is from this queue. Another query may have changed the standing of its symbols since."""
        return batch[0] in self._taken

    def put_back(self, rest: Collection[str]) -> None:
        """Put the rest of a failed batch behind the other symbols; see `Trials`."""
        for symbol in rest:
            heapq.heappush(self._heap, self._taken[symbol]._replace(negative_limit=-_half(rest)))


class Standing:
    """The standing of each symbol. The caller stores `changes()` in the database, and then calls `saved`."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._priced: set[str] = set()
        self._refusals: dict[str, Refusal] = {}
        self._trials: dict[str, Trial] = {}
        self._crowds: Mapping[str, Crowd] = {}
        self._unsaved: dict[str, Refusal | None] = {}

    def remember(self, refusals: Iterable[Refusal], priced: Iterable[str]) -> None:
        """Take over the database's state: the refusals, and the symbols that have a price."""
        stored: dict[str, Refusal | None] = {refusal.symbol: refusal for refusal in refusals}
        stored |= self._unsaved
        self._refusals = {symbol: refusal for symbol, refusal in stored.items() if refusal is not None}
        self._priced = (self._priced | set(priced)) - self._refusals.keys()
        oldest = self._now() - TRIAL_LIFETIME
        self._trials = {symbol: trial for symbol, trial in self._trials.items() if trial.tried_at > oldest}

    def set_crowds(self, crowds: Mapping[str, Crowd]) -> None:
        """Set the order in which symbols of unknown standing are tried; see `Trials`."""
        self._crowds = crowds

    def unknown(self, symbols: Iterable[str]) -> set[str]:
        """The symbols that the source has not priced, refused ones included."""
        return {symbol for symbol in symbols if symbol not in self._priced}

    def refusing(self, symbols: Iterable[str]) -> set[str]:
        """The symbols that the source refused when it was last asked."""
        return {symbol for symbol in symbols if symbol in self._refusals}

    def priced(self, symbols: Iterable[str]) -> list[str]:
        """The symbols that the source has priced before, in alphabetical order."""
        return sorted(symbol for symbol in symbols if symbol in self._priced)

    def trials(self, symbols: Collection[str], *, silent: bool) -> Trials:
        """The queue of the due symbols of unknown standing.

        With `silent`, symbols in `NO_PRICE_PAUSE` are due too, unless the source refuses them.
        """
        now = self._now()
        return Trials(
            entry for symbol in self.unknown(symbols) if (entry := self._entry(symbol, now, silent)) is not None
        )

    def record_answer(self, batch: Iterable[str], priced: Collection[str], *, silent: bool) -> None:
        """Record that the source accepted a batch and priced some of its symbols.

        With `silent`, the symbols that were never priced are not asked for again for a while.
        """
        now = self._now()
        for symbol in batch:
            if self._refusals.pop(symbol, None) is not None:
                self._unsaved[symbol] = None
            if symbol in priced:
                self._priced.add(symbol)
                self._trials.pop(symbol, None)
            elif symbol not in self._priced:
                self._trials[symbol] = Trial(NO_LIMIT, now, now + NO_PRICE_PAUSE if silent else now)

    def record_refusal(self, symbol: str) -> bool:
        """Record that the source refused the symbol itself; returns whether it is the first time."""
        now = self._now()
        before = self._refusals.get(symbol)
        refusals = 1 if before is None else before.refusals + 1
        pause = min(FIRST_REFUSAL * 2 ** min(refusals - 1, 10), LONGEST_REFUSAL)
        self._refusals[symbol] = self._unsaved[symbol] = Refusal(symbol, refusals, now, now + pause)
        self._priced.discard(symbol)
        self._trials.pop(symbol, None)
        return before is None

    def record_failure(self, rest: Collection[str], *, alone: bool = False) -> None:
        """Record the unresolved symbols of a failed batch.

        A symbol that failed alone is not asked for again for a while.
        """
        now = self._now()
        due = now + NO_PRICE_PAUSE if alone else now
        for symbol in rest:
            self._trials[symbol] = Trial(_half(rest), now, due)

    def changes(self) -> Refusals:
        """The changes that the database does not have: refusals, and None for symbols that are no longer refused."""
        return dict(self._unsaved)

    def saved(self, changes: Refusals) -> None:
        """Record that these changes are committed."""
        for symbol, refusal in changes.items():
            if symbol in self._unsaved and self._unsaved[symbol] is refusal:
                del self._unsaved[symbol]

    def _entry(self, symbol: str, now: datetime, silent: bool) -> Entry | None:
        """The symbol's entry; None if it is not due.

        A due time beyond any pause comes from a wrong clock and is ignored.
        """
        crowd = self._crowds.get(symbol, NO_CROWD)
        size = (crowd.size // SMALL_CROWD).bit_length()
        trial = self._trials.get(symbol, Trial(NO_LIMIT, datetime.min.replace(tzinfo=UTC), now))
        refusal = self._refusals.get(symbol)
        if refusal is not None:
            if now < refusal.retry_at <= now + LONGEST_REFUSAL or now < trial.due_at <= now + NO_PRICE_PAUSE:
                return None
            return Entry(True, size, -1, refusal.refused_at.timestamp(), crowd.portfolio, symbol)
        if not silent and now < trial.due_at <= now + NO_PRICE_PAUSE:
            return None
        tried_at = trial.tried_at.timestamp() if trial.tried_at.year > 1 else 0.0
        return Entry(False, size, -trial.most, tried_at, crowd.portfolio, symbol)


def _half(batch: Collection[str]) -> int:
    return (len(batch) + 1) // 2


@runtime_checkable
class HasStanding(Protocol):
    """A price source with a standing for each symbol. The caller stores the standing in the database."""

    standing: Standing


def standing_of(source: object) -> Standing | None:
    """The standing of a price source; None if the source treats all symbols alike."""
    return source.standing if isinstance(source, HasStanding) else None
