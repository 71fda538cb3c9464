"""Positions in memory: updating them from changes gives the same result as loading them again."""

import asyncio
import itertools
import secrets
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from uuid import UUID

import asyncpg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.database import position_reader
from service.database.connection import Connection, StoreError
from service.database.copy_format import HEAD_ROW, HEADER, POSITION, TRAILER, read_position_rows
from service.database.sql import statement
from service.database.store import Store
from service.portfolio import positions
from service.portfolio.positions import Block, Book, Checkpoint, Symbols, divided, id_array, uuids
from tests.service.conftest import CLEAN
from tests.service.portfolio.reference import block_of
from tests.support.positions import LONG_AGO, entry, held, holdings
from tests.support.work_fakes import FakeTerm

DAY = date(2026, 3, 2)
ids = st.integers(0, 2**128 - 1).map(lambda number: UUID(int=number))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make blocks small, so that a few portfolios fill many blocks."""
    monkeypatch.setattr(positions, "PORTFOLIOS_PER_BLOCK", 3)
    monkeypatch.setattr(position_reader, "PORTFOLIOS_PER_BLOCK", 3)


@given(st.lists(st.integers(1, 5), max_size=6), st.integers(1, 8))
def test_divided_blocks_have_each_portfolio_once_in_parts_of_equal_size(sizes: list[int], parts: int) -> None:
    numbers, both = itertools.count(), (("A", Decimal(1)), ("B", Decimal(2)))
    blocks = [block_of({UUID(int=n): both[: n % 3] for n in itertools.islice(numbers, size)}, "AB") for size in sizes]
    found = divided(blocks, parts)
    lengths = [sum(map(len, part)) for part in found]
    assert len(found) == parts
    assert max(lengths) - min(lengths) <= 1
    assert all(len(block) for part in found for block in part)
    whole, joined = Block.joined(blocks), Block.joined([block for part in found for block in part])
    for name in ("ids", "starts", "symbols", "quantities"):
        assert getattr(joined, name).tolist() == getattr(whole, name).tolist()


@given(st.lists(ids, max_size=20))
def test_ids_survive_the_array_and_sort_in_the_order_of_the_database(given_ids: list[UUID]) -> None:
    assert uuids(id_array(given_ids)) == given_ids
    assert uuids(np.sort(id_array(given_ids))) == sorted(given_ids, key=lambda one: one.bytes)


def the_book(portfolios: dict[UUID, int]) -> Book:
    symbols = Symbols()
    symbols.learn({"A": 7})
    held_by = {one: ((("A", Decimal(quantity)),) if quantity else ()) for one, quantity in portfolios.items()}
    whole = block_of(held_by, ["A"])
    blocks = [whole.take(np.arange(first, min(first + 3, len(whole)))) for first in range(0, len(whole), 3)]
    return Book(DAY, symbols, blocks, Checkpoint("", ""))


keys = st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 2).map(lambda number: number * 2**40)
"""Any hashes, some with the same lowest bits."""


@given(st.lists(keys, unique=True), st.lists(keys))
def test_a_symbol_is_found_by_its_key_among_any_others(known: list[int], others: list[int]) -> None:
    symbols = Symbols()
    for first in range(0, len(known), 4):  # a few at a time, as blocks add them
        symbols.learn({f"S{key}": key for key in known[first : first + 4]})
    asked = known[::-1] + others
    found = symbols.numbers(np.array(asked, np.int64))
    assert [symbols[number] if number >= 0 else None for number in found] == [
        f"S{key}" if key in known else None for key in asked
    ]


SAME_HASH = "Z1SQFCAAAAAA-2.1ZDLY"
"""A symbol that has the database's hash of AAPL if the seed is 0."""


async def test_a_symbol_made_up_for_its_hash_does_not_take_the_place_of_another_symbol(store: Store) -> None:
    await store.put_positions([entry(n, SAME_HASH, "1") for n in range(1, 4)])
    book = await store.load_positions(DAY)
    await store.put_positions([entry(4, "AAPL", "10"), entry(4, "B", "1")])
    expected = [((SAME_HASH, Decimal(1)),)] * 3 + [(("AAPL", Decimal(10)), ("B", Decimal(1)))]
    assert list((await held(store, DAY)).values()) == expected  # one block has portfolios 1 to 3, the other has 4
    assert list(holdings(await store.update_positions(book, DAY)).values()) == expected


async def test_after_two_symbols_got_the_same_hash_the_next_load_reads_both(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await store.put_positions([entry(1, SAME_HASH, "1")])
    with monkeypatch.context() as patched:
        patched.setattr(secrets, "randbits", lambda _: 2**63)  # the seed 0
        book = await store.load_positions(DAY)
        await store.put_positions([entry(2, "AAPL", "10"), entry(2, "B", "1")])
        with pytest.raises(StoreError, match="have the same hash"):
            await store.load_positions(DAY)
    loaded = await store.load_positions(DAY)
    assert set(loaded.held()) == {"AAPL", "B", SAME_HASH}
    updated = await store.update_positions(book, DAY)
    assert holdings(updated) == holdings(loaded)
    assert any("have the same hash" in line for line in caplog.messages)


@pytest.mark.parametrize("portfolios", [0, 1, 3])
async def test_an_incomplete_copy_is_an_error(store: Store, raw: Connection, portfolios: int) -> None:
    await store.put_positions([entry(n, symbol, str(n), LONG_AGO) for n in range(1, portfolios + 1) for symbol in "AB"])
    parts: list[bytes] = []

    async def take(data: bytes) -> None:
        parts.append(data)

    query = statement("positions_between").rpartition("-- ")[2].partition("\n")[2]
    await raw.copy_from_query(query, DAY, None, UUID(int=2**128 - 1), 0, output=take, format="binary")
    copied = b"".join(parts)
    whole = read_position_rows(copied)
    assert uuids(whole.ids) == [UUID(int=n) for n in range(1, portfolios + 1)]
    assert (whole.counts.tolist(), len(whole.positions)) == ([2] * portfolios, 2 * portfolios)
    a_row = HEAD_ROW.itemsize + 2 * POSITION.itemsize
    for end in range(len(copied)):
        with pytest.raises(ValueError, match="COPY"):
            read_position_rows(copied[:end])
        if len(HEADER) < end < len(copied) - len(TRAILER) and (end - len(HEADER)) % a_row:
            with pytest.raises(ValueError, match="COPY"):
                read_position_rows(copied[:end] + TRAILER)  # an incomplete row


@given(st.dictionaries(ids, st.integers(0, 5)), st.dictionaries(ids, st.integers(0, 5)), st.data())
def test_replacing_portfolios_equals_an_update_of_a_dictionary(
    before: dict[UUID, int], after: dict[UUID, int], data: st.DataObject
) -> None:
    """Some portfolios change, some disappear and some are new, at either end and in between."""
    some = data.draw(st.lists(st.sampled_from(sorted(before)), unique=True)) if before else []
    fresh = after | {one: data.draw(st.integers(0, 5)) for one in some[::2]}
    book = the_book(before)
    book.replace(np.unique(id_array([*some, *fresh])), Block.joined(the_book(fresh).blocks))
    expected = {one: quantity for one, quantity in before.items() if one not in some} | fresh
    assert holdings(book) == holdings(the_book(expected))
    assert [one for block in book.blocks for one in uuids(block.ids)] == sorted(expected, key=lambda one: one.bytes)
    assert all(0 < len(block) <= 2 * 3 or len(book.blocks) == 1 for block in book.blocks)


changes = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "close", "drop", "delete", "import"]),
        st.integers(1, 12),
        st.sampled_from("ABC"),
        st.integers(1, 9),
        st.integers(-3, 3),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(st.lists(changes, min_size=1, max_size=4), st.lists(st.integers(-1, 2), min_size=4, max_size=4))
def test_changes_applied_one_after_the_other_equal_a_fresh_load(
    migrated_once: str, rounds: list[list[tuple[str, int, str, int, int]]], steps: list[int]
) -> None:
    """The positions are equal after any changes of the tables and of the date."""
    asyncio.run(_apply(migrated_once, rounds, steps))


async def _apply(dsn: str, rounds: list[list[tuple[str, int, str, int, int]]], steps: list[int]) -> None:
    raw = await asyncpg.connect(dsn)
    try:
        async with await Store.connect(dsn, connections=2) as store:
            await store.put_positions([entry(n, "A", str(n)) for n in range(1, 9)])
            day = DAY
            book = await store.load_positions(day)
            for round_, step in zip(rounds, steps, strict=False):
                for change in round_:
                    await _change(store, raw, *change)
                day += timedelta(days=step)
                book = await store.update_positions(book, day)
                assert holdings(book) == await held(store, day)
                assert set(book.held()) == {symbol for one in holdings(book).values() for symbol, _ in one}
    finally:
        await raw.execute(CLEAN)
        await raw.close()


async def _change(store: Store, raw: Connection, what: str, portfolio: int, symbol: str, number: int, at: int) -> None:
    valid_from = DAY + timedelta(days=at)
    portfolio_id = UUID(int=portfolio)
    match what:
        case "put":
            await store.put_positions([entry(portfolio, symbol, str(number), valid_from)])
        case "close":
            await store.put_positions([entry(portfolio, symbol, "0", valid_from)])
        case "drop":
            await raw.execute("delete from position where portfolio_id = $1 and symbol = $2", portfolio_id, symbol)
        case "delete":
            await raw.execute("delete from portfolio where id = $1", portfolio_id)
        case "import":
            await store.put_positions([entry(n, symbol, "2", valid_from) for n in range(portfolio, portfolio + number)])


async def test_a_change_committed_after_a_later_one_was_read_is_not_missed(store: Store, raw: Connection) -> None:
    """A reader that asked only for higher sequence numbers would miss the earlier change.

    A tick that read the later change does not delete the earlier one.
    """
    await store.claim_fence(FakeTerm())
    await store.put_positions([entry(1, "A", "1"), entry(2, "A", "1")])
    book = await store.load_positions(DAY)
    early = raw.transaction()
    await early.start()
    await raw.execute("update position set quantity = 5 where portfolio_id = $1", UUID(int=1))
    await store.put_positions([entry(2, "A", "6")])
    book = await store.update_positions(book, DAY)
    assert [one[0][1] for one in holdings(book).values()] == [1, 6]
    await early.commit()
    async with store.fenced(FakeTerm()) as writes:
        await writes.forget_changes(book.checkpoint.snapshot)
    book = await store.update_positions(book, DAY)
    assert [one[0][1] for one in holdings(book).values()] == [5, 6]


async def test_a_position_moved_to_another_portfolio_changes_both(store: Store, raw: Connection) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(2, "B", "1")])
    book = await store.load_positions(DAY)
    await raw.execute("update position set portfolio_id = $1 where symbol = 'A'", UUID(int=2))
    assert holdings(await store.update_positions(book, DAY)) == await held(store, DAY)


@pytest.mark.parametrize("table", ["position", "portfolio"])
async def test_a_truncated_table_changes_every_portfolio(store: Store, raw: Connection, table: str) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(2, "B", "1")])
    book = await store.load_positions(DAY)
    await raw.execute(f"truncate {table} cascade")
    updated = await store.update_positions(book, DAY)
    assert not updated.held()
    assert holdings(updated) == await held(store, DAY)


async def test_an_update_reads_only_changes_unless_they_are_many(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[date] = []
    real: Callable[..., object] = position_reader.PositionReader.load

    def load(*args: object) -> object:
        loads.append(DAY)
        return real(*args)

    await store.put_positions([entry(n, "A", "1") for n in range(1, 21)])
    book = await store.load_positions(DAY)
    monkeypatch.setattr(position_reader.PositionReader, "load", load)
    for count in (3, 9):
        await store.put_positions([entry(n, "A", "7") for n in range(1, count + 1)])
        book = await store.update_positions(book, DAY)
    assert len(loads) == 1
    assert holdings(book) == await held(store, DAY)


async def test_only_changes_that_a_tick_has_read_are_deleted(store: Store, raw: Connection) -> None:
    await store.put_positions([entry(1, "A", "1")])
    book = await store.load_positions(DAY)
    await store.put_positions([entry(2, "A", "1")])
    await store.claim_fence(FakeTerm())
    async with store.fenced(FakeTerm()) as writes:
        await writes.forget_changes(book.checkpoint.snapshot)
    left = await raw.fetch("select distinct portfolio_id from position_change")
    assert [row["portfolio_id"] for row in left] == [UUID(int=2)]


async def test_loading_reports_its_progress_and_can_be_stopped(store: Store) -> None:
    await store.put_positions([entry(n, "A", "1") for n in range(1, 8)])
    reported: list[tuple[int, int]] = []
    await store.load_positions(DAY, lambda done, total: reported.append((done, total)))
    # Two readers work in parallel, so the short last piece may arrive before the second piece.
    assert reported in ([(0, 7), (3, 7), (6, 7), (7, 7)], [(0, 7), (3, 7), (4, 7), (7, 7)])

    def enough(done: int, total: int) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await store.load_positions(DAY, enough)


@pytest.mark.parametrize("quantity", ["10000000000", "-10000000000", "NaN"])
async def test_a_quantity_too_wide_for_exact_sums_is_refused(store: Store, quantity: str) -> None:
    with pytest.raises(StoreError):
        await store.put_positions([entry(1, "A", quantity)])


async def test_the_widest_quantities_are_stored_and_read_exactly(store: Store) -> None:
    quantities = ["9999999999.99999999", "0.00000001", "-9999999999.99999999"]
    await store.put_positions([entry(n, "A", quantity, LONG_AGO) for n, quantity in enumerate(quantities)])
    found = [one[0][1] for one in (await held(store, DAY)).values()]
    assert found == [Decimal(quantity) for quantity in quantities]
