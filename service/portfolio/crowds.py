"""How crowded portfolios are with symbols of unknown standing: who holds few of them waits for nobody with many."""

import asyncio
from collections.abc import Collection

import numpy as np

from service.portfolio.positions import Book
from service.prices.standing import SMALL_CROWD, Crowd, Standing

PLACES = 2**32
"""More than there are portfolios: a crowd's size and its portfolio's place share one integer."""


async def line_up(standing: Standing, book: Book, symbols: Collection[str]) -> None:
    """Set the order in which the price source tries out those symbols that it has not priced."""
    if unknown := standing.unknown(symbols):
        standing.line_up(await asyncio.to_thread(crowds, book, unknown, standing.refusing(unknown)))


def crowds(book: Book, unknown: Collection[str], refused: Collection[str]) -> dict[str, Crowd]:
    """Each unknown symbol's least crowded holder; a symbol that nobody holds is left out. Refused ones are unknown."""
    weights = np.fromiter(
        ((symbol in unknown) + (SMALL_CROWD - 1) * (symbol in refused) for symbol in book.symbols),
        np.int64,
        len(book.symbols),
    )
    is_unknown = weights > 0
    least = np.full(len(book.symbols), np.iinfo(np.int64).max)
    first = 0
    for block in book.blocks:
        if not is_unknown[block.held].any():
            first += len(block)
            continue
        of_position = weights[block.symbols]
        wanted = of_position > 0
        holders = np.repeat(np.arange(len(block)), block.counts)[wanted]
        sizes = np.bincount(holders, of_position[wanted], len(block)).astype(np.int64)
        np.minimum.at(least, block.symbols[wanted], sizes[holders] * PLACES + first + holders)
        first += len(block)
    return {
        book.symbols[int(number)]: Crowd(*map(int, divmod(least[number], PLACES)))
        for number in np.flatnonzero(is_unknown)
        if least[number] < np.iinfo(np.int64).max
    }
