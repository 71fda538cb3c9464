"""Every portfolio's positions in memory, as arrays: 12 bytes a position. Nothing here does I/O.

Portfolios are in the order of their keys, in blocks: a block is loaded, valued and changed as a whole, and its arrays
fit the processor's cache.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Self, TypeAlias
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

Ids: TypeAlias = NDArray[np.bytes_]
"""Portfolio ids, 16 bytes each (`S16`), which compare as Postgres compares them."""
Numbers: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]

PORTFOLIOS_A_BLOCK = 10_000


def id_array(portfolio_ids: Iterable[UUID]) -> Ids:
    """Ids as an array, in the order given."""
    return np.frombuffer(b"".join(portfolio_id.bytes for portfolio_id in portfolio_ids), "S16")


def uuids(ids: Ids) -> list[UUID]:
    """The ids of an array; a single element of it would lack the zeros at its end."""
    packed = ids.tobytes()
    return [UUID(bytes=packed[at : at + 16]) for at in range(0, len(packed), 16)]


@dataclass(frozen=True)
class Block:
    """Some portfolios in key order, and what they hold; a portfolio's positions are neighbours."""

    ids: Ids
    starts: Numbers
    """Where each portfolio's positions begin, and at the end how many there are in all: one longer than `ids`."""
    symbols: NDArray[np.int32]
    """Of each position, the number of its symbol."""
    quantities: Numbers
    """Of each position, in hundred-millionths of a share; never 0."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def counts(self) -> Numbers:
        """How many positions each portfolio has."""
        return np.diff(self.starts)

    @cached_property
    def held(self) -> NDArray[np.intp]:
        """The numbers of the symbols that anybody here holds."""
        return np.flatnonzero(np.bincount(self.symbols))

    @classmethod
    def empty(cls) -> Self:
        """A block of no portfolios."""
        return cls(np.empty(0, "S16"), np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.int64))

    @classmethod
    def joined(cls, blocks: Sequence["Block"]) -> Self:
        """One block of all, in the order given."""
        if not blocks:
            return cls.empty()
        counts = np.concatenate([block.counts for block in blocks])
        return cls(
            np.concatenate([block.ids for block in blocks]),
            starts_of(counts),
            np.concatenate([block.symbols for block in blocks]),
            np.concatenate([block.quantities for block in blocks]),
        )

    def take(self, rows: NDArray[np.intp]) -> "Block":
        """The portfolios of those rows, in that order."""
        counts = self.counts[rows]
        starts = starts_of(counts)
        places = np.repeat(self.starts[rows] - starts[:-1], counts) + np.arange(starts[-1])
        return Block(self.ids[rows], starts, self.symbols[places], self.quantities[places])

    def replaced(self, changed: Ids, fresh: "Block") -> "Block":
        """This block without the `changed` portfolios and with the `fresh` ones."""
        kept = self.take(np.flatnonzero(~np.isin(self.ids, changed)))
        both = Block.joined([kept, fresh])
        return both.take(np.argsort(both.ids, kind="stable"))


@dataclass(frozen=True, slots=True)
class Place:
    """A reader's place in the changes of the positions."""

    snapshot: str
    """What the reader saw, as Postgres writes a `pg_snapshot`."""
    server: int
    """When the server's process started, in µs since the epoch: no other run of this or another server has it."""


class Book:
    """What every portfolio holds on one date."""

    def __init__(self, day: date, symbols: "Symbols", blocks: Sequence[Block], place: Place) -> None:
        self.day = day
        self.symbols = symbols
        self.blocks = list(blocks)
        self.place = place
        """What the positions are true of: see `PositionReader`."""

    def __len__(self) -> int:
        return sum(map(len, self.blocks))

    def held(self) -> list[str]:
        """The symbols that anybody holds, in the order of their numbers."""
        flags = np.zeros(len(self.symbols), np.bool_)
        for block in self.blocks:
            flags[block.held] = True
        return [self.symbols[int(number)] for number in np.flatnonzero(flags)]

    def replace(self, changed: Ids, fresh: Block) -> None:
        """Set the `changed` portfolios to what `fresh`, in key order, has of them: nothing, for those that are gone."""
        if not len(changed):
            return
        blocks = self.blocks or [Block.empty()]
        bounds = np.array([block.ids[0] for block in blocks[1:]], "S16")
        place_of_changed = np.searchsorted(bounds, changed, "right")
        place_of_fresh = np.searchsorted(bounds, fresh.ids, "right")
        for place in np.unique(place_of_changed):
            blocks[place] = blocks[place].replaced(
                changed[place_of_changed == place], fresh.take(np.flatnonzero(place_of_fresh == place))
            )
        self.blocks = [part for block in blocks for part in _split(block)]


class Symbols:
    """Symbols by number and numbers by symbol; a number is given once and lasts."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._keys: list[int] = []
        self._numbers: dict[int, int] = {}
        self._table = _Table(np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, number: int) -> str:
        return self._names[number]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def learn(self, names: Mapping[int, str]) -> None:
        """Give a number to each symbol that has none, by the database's key for it."""
        for key, name in names.items():
            if key not in self._numbers:
                self._numbers[key] = len(self._names)
                self._names.append(name)
                self._keys.append(key)
        self._table = _Table(np.array(self._keys, np.int64))

    def numbers(self, keys: Numbers) -> NDArray[np.int32]:
        """The numbers of symbols, by the database's keys for them; -1 for one that has not been learnt."""
        return self._table.numbers(keys)


class _Table:
    """Where each of some keys is, which are hashes: found at once in the slot of its last bits, where that is its own.

    The few that share a slot are looked for in all; to do so for every key takes ten times as long.
    """

    SLOTS_A_KEY = 64

    def __init__(self, keys: Numbers) -> None:
        self._keys = keys
        self._order = np.argsort(keys).astype(np.int32)
        self._mask = np.int64((1 << (len(keys) * self.SLOTS_A_KEY).bit_length()) - 1)
        self._slots = np.zeros(self._mask + 1, np.int32)
        self._slots[keys & self._mask] = np.arange(len(keys), dtype=np.int32)

    def numbers(self, keys: Numbers) -> NDArray[np.int32]:
        """The place of each among the table's keys, -1 if it is not there."""
        if not len(self._keys):
            return np.full(len(keys), -1, np.int32)
        found: NDArray[np.int32] = self._slots[keys & self._mask]
        elsewhere = np.flatnonzero(self._keys[found] != keys)
        if len(elsewhere):
            places = np.searchsorted(self._keys, keys[elsewhere], sorter=self._order)
            candidates = self._order[np.minimum(places, len(self._keys) - 1)]
            found[elsewhere] = np.where(self._keys[candidates] == keys[elsewhere], candidates, np.int32(-1))
        return found


def starts_of(counts: Numbers) -> Numbers:
    """Where each of some runs begins that follow each other, and at the end how long they are in all."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _split(block: Block) -> list[Block]:
    """The block, in halves if it has grown too large, and nothing of one that is empty."""
    if len(block) < 2 * PORTFOLIOS_A_BLOCK:
        return [block] if len(block) else []
    half = len(block) // 2
    return [*_split(block.take(np.arange(half))), *_split(block.take(np.arange(half, len(block))))]
