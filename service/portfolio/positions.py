"""The positions of all portfolios in memory, as arrays of 12 bytes per position. No I/O.

Portfolios are in key order, in blocks. A block is loaded, valued and changed as a whole. The arrays of a block fit the
processor's cache.
"""

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Self, TypeAlias
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

Ids: TypeAlias = NDArray[np.bytes_]
"""Portfolio ids of 16 bytes (`S16`), which sort as in Postgres."""
Numbers: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]

PORTFOLIOS_PER_BLOCK = 10_000


def id_array(portfolio_ids: Iterable[UUID]) -> Ids:
    """The ids as an array, in the given order."""
    return np.frombuffer(b"".join(portfolio_id.bytes for portfolio_id in portfolio_ids), "S16")


def uuids(ids: Ids) -> list[UUID]:
    """The ids of an array. They are cut from its bytes, because numpy strips trailing zero bytes from an element."""
    packed = ids.tobytes()
    return [UUID(bytes=packed[at : at + 16]) for at in range(0, len(packed), 16)]


@dataclass(frozen=True)
class Block:
    """Portfolios in key order and their positions. The positions of a portfolio are adjacent."""

    ids: Ids
    starts: Numbers
    """Index of each portfolio's first position, then the number of all positions: one element more than `ids` has."""
    symbols: NDArray[np.int32]
    """Number of each position's symbol."""
    quantities: Numbers
    """Quantity of each position in units of 1e-8 shares; never 0."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def counts(self) -> Numbers:
        """The number of positions of each portfolio."""
        return np.diff(self.starts)

    @cached_property
    def held(self) -> NDArray[np.intp]:
        """The numbers of the symbols that some portfolio of the block holds."""
        return np.flatnonzero(np.bincount(self.symbols))

    @classmethod
    def empty(cls) -> Self:
        """A block without portfolios."""
        return cls(np.empty(0, "S16"), np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.int64))

    @classmethod
    def joined(cls, blocks: Sequence["Block"]) -> Self:
        """All blocks as one, in the given order."""
        if not blocks:
            return cls.empty()
        counts = np.concatenate([block.counts for block in blocks])
        return cls(
            np.concatenate([block.ids for block in blocks]),
            starts_of(counts),
            np.concatenate([block.symbols for block in blocks]),
            np.concatenate([block.quantities for block in blocks]),
        )

    def between(self, first: int, end: int) -> "Block":
        """The portfolios from row `first` up to row `end`, which is excluded."""
        at, until = self.starts[first], self.starts[end]
        return Block(
            self.ids[first:end], self.starts[first : end + 1] - at, self.symbols[at:until], self.quantities[at:until]
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
class Checkpoint:
    """The changes of positions that a reader has seen, identified by a snapshot of the database."""

    snapshot: str
    """Snapshot that the reader saw, as Postgres writes a `pg_snapshot`."""
    origin: str
    """Identity of the server's run and of its data.

    It changes with each restart, failover, recovery from a crash, and restore of a dump.
    """


class Book:
    """The positions of portfolios on one date: of all portfolios, or of those that a job has to value."""

    def __init__(self, day: date, symbols: "Symbols", blocks: Sequence[Block], checkpoint: Checkpoint) -> None:
        self.day = day
        self.symbols = symbols
        self.blocks = list(blocks)
        self.checkpoint = checkpoint
        """Checkpoint at which the positions were read; see `PositionReader`."""

    def __len__(self) -> int:
        return sum(map(len, self.blocks))

    def held(self) -> list[str]:
        """The symbols that some portfolio holds, in the order of their numbers."""
        flags = np.zeros(len(self.symbols), np.bool_)
        for block in self.blocks:
            flags[block.held] = True
        return [self.symbols[int(number)] for number in np.flatnonzero(flags)]

    def replace(self, changed: Ids, fresh: Block) -> None:
        """Replace the `changed` portfolios by `fresh`, which is in key order.

        Changed portfolios that are missing in `fresh` are removed.
        """
        if not len(changed):
            return
        blocks = self.blocks or [Block.empty()]
        bounds = np.array([block.ids[0] for block in blocks[1:]], "S16")
        block_of_changed = np.searchsorted(bounds, changed, "right")
        block_of_fresh = np.searchsorted(bounds, fresh.ids, "right")
        for index in np.unique(block_of_changed):
            blocks[index] = blocks[index].replaced(
                changed[block_of_changed == index], fresh.take(np.flatnonzero(block_of_fresh == index))
            )
        self.blocks = [part for block in blocks for part in _split(block)]


def divided(blocks: Sequence[Block], parts: int) -> list[list[Block]]:
    """The blocks in adjacent parts of about equal numbers of portfolios. A block may be cut in two."""
    ends = np.cumsum([len(block) for block in blocks], dtype=np.int64)
    total = int(ends[-1]) if len(blocks) else 0

    def part(first: int, end: int) -> Iterator[Block]:
        for block, block_end in zip(blocks, ends, strict=True):
            start = int(block_end) - len(block)
            inner = max(first - start, 0), min(end - start, len(block))
            if inner == (0, len(block)):
                yield block
            elif inner[0] < inner[1]:
                yield block.between(*inner)

    return [list(part(total * number // parts, total * (number + 1) // parts)) for number in range(parts)]


class HashCollision(Exception):
    """Two symbols have the same hash. With another seed their hashes differ."""


class Symbols:
    """Symbols by number, and numbers by the database's hash of a symbol. The number of a symbol never changes.

    The hash function is public. A user who knew the seed could make up a symbol that has another symbol's hash and
    takes that symbol's place in all portfolios. So each object has its own seed.

    Args:
        seed: seed of the hash, a signed 64-bit number; a random one by default.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = secrets.randbits(64) - 2**63 if seed is None else seed
        self._names: list[str] = []
        self._keys: list[int] = []
        self._numbers: dict[int, int] = {}
        self._table = _KeyIndex(np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, number: int) -> str:
        return self._names[number]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def learn(self, keys: Mapping[str, int]) -> None:
        """Give a number to each new symbol. `keys` are the database's hashes by symbol.

        Raises:
            HashCollision: two symbols have the same hash.
        """
        for name, key in keys.items():
            number = self._numbers.setdefault(key, len(self._names))
            if number == len(self._names):
                self._names.append(name)
                self._keys.append(key)
            elif self._names[number] != name:
                raise HashCollision(f"the symbols {self._names[number]!r} and {name!r} have the same hash")
        self._table = _KeyIndex(np.array(self._keys, np.int64))

    def numbers(self, keys: Numbers) -> NDArray[np.int32]:
        """The numbers of symbols by the database's hashes; -1 for an unknown symbol."""
        return self._table.numbers(keys)


class _KeyIndex:
    """The index of each key in an array of hashes. Most keys are found at once, in the slot of their lowest bits.

    The few keys that share a slot are found by binary search, which is slower.
    """

    SLOTS_PER_KEY = 64

    def __init__(self, keys: Numbers) -> None:
        self._keys = keys
        self._order = np.argsort(keys).astype(np.int32)
        self._mask = np.int64((1 << (len(keys) * self.SLOTS_PER_KEY).bit_length()) - 1)
        self._slots = np.zeros(self._mask + 1, np.int32)
        self._slots[keys & self._mask] = np.arange(len(keys), dtype=np.int32)

    def numbers(self, keys: Numbers) -> NDArray[np.int32]:
        """The index of each key in the table; -1 for a key that is not in the table."""
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
    """The start of each of several adjacent runs, and their total length at the end."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _split(block: Block) -> list[Block]:
    """The block, halved until it is small enough; nothing for an empty block."""
    if len(block) < 2 * PORTFOLIOS_PER_BLOCK:
        return [block] if len(block) else []
    half = len(block) // 2
    return [*_split(block.take(np.arange(half))), *_split(block.take(np.arange(half, len(block))))]
