"""The crowd of an unknown symbol: the portfolio with the fewest unknown symbols, of those that hold the symbol."""

from datetime import date
from uuid import UUID

from service.database.store import Store
from service.portfolio.crowds import crowds
from service.prices.standing import Crowd
from tests.support.positions import entry

DAY = date(2026, 3, 2)


async def test_a_symbols_crowd_is_the_portfolio_with_the_fewest_unknown_symbols(store: Store) -> None:
    held = {1: ["A", "B", "C", "K"], 2: [], 3: ["B", "K"], 4: ["K"], 5: ["B", "D"]}
    await store.put_positions(entry(number, symbol, "1") for number, symbols in held.items() for symbol in symbols)
    await store.put_positions([entry(2, "A", "0")])
    book = await store.load_positions(DAY)
    places = [block.ids for block in book.blocks]
    assert len(places) == 1
    assert len(book) == 5
    assert crowds(book, {"A", "B", "C", "D", "X"}, ()) == {
        "A": Crowd(3, 0),
        "B": Crowd(1, 2),
        "C": Crowd(3, 0),
        "D": Crowd(2, 4),
    }


async def test_portfolios_of_every_block_are_counted(store: Store) -> None:
    await store.put_positions([entry(1, "A", "1"), entry(1, "B", "1"), entry(2, "A", "1")])
    book = await store.load_positions(DAY)
    (block,) = book.blocks
    book.blocks = [block.take([0]), block.take([1])]  # type: ignore[arg-type]
    assert crowds(book, {"A", "B"}, {"B"}) == {"A": Crowd(1, 1), "B": Crowd(33, 0)}
    assert UUID(int=1).bytes < UUID(int=2).bytes
