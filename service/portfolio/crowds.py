"""The order in which unknown symbols are tried. An unknown symbol is one that the price source has not priced.

The order depends on each symbol's crowd. A symbol's crowd is one of the portfolios that hold it: the portfolio with the
fewest unknown symbols. The size of a crowd is the number of its unknown symbols; a refused symbol counts as
`SMALL_CROWD` symbols. Symbols of small crowds are tried first, so that a portfolio with few unknown symbols does not
wait for a portfolio with many.
"""

import asyncio
from collections.abc import Collection

import numpy as np

from service.portfolio.positions import Book
from service.prices.standing import SMALL_CROWD, Crowd, Standing

MAX_PORTFOLIOS = 2**32
"""Factor that combines a crowd's size and its portfolio's index into one integer; above any number of portfolios."""


async def set_trial_order(standing: Standing, book: Book, symbols: Collection[str]) -> None:
    """Set the order in which the price source tries the symbols that it has not priced."""
    if unknown := standing.unknown(symbols):
        standing.set_crowds(await asyncio.to_thread(crowds, book, unknown, standing.refusing(unknown)))


def crowds(book: Book, unknown: Collection[str], refused: Collection[str]) -> dict[str, Crowd]:
    """For each unknown symbol, the least crowded portfolio that holds it.

    A symbol that no portfolio holds is left out.
    """
    weights = np.fromiter(
        ((symbol in unknown) + (SMALL_CROWD - 1) * (symbol in refused) for symbol in book.symbols),
        np.int64,
        len(book.symbols),
    )
    is_unknown = weights > 0
    least = np.full(len(book.symbols), np.iinfo(np.int64).max)
    first_portfolio = 0
    for block in book.blocks:
        if not is_unknown[block.held].any():
            first_portfolio += len(block)
            continue
        position_weights = weights[block.symbols]
        wanted = position_weights > 0
        holders = np.repeat(np.arange(len(block)), block.counts)[wanted]
        sizes = np.bincount(holders, position_weights[wanted], len(block)).astype(np.int64)
        np.minimum.at(least, block.symbols[wanted], sizes[holders] * MAX_PORTFOLIOS + first_portfolio + holders)
        first_portfolio += len(block)
    return {
        book.symbols[int(number)]: Crowd(*map(int, divmod(least[number], MAX_PORTFOLIOS)))
        for number in np.flatnonzero(is_unknown)
        if least[number] < np.iinfo(np.int64).max
    }
