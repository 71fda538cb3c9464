"""Prices that jump as they do at a stock split."""

import logging
from collections.abc import Mapping
from decimal import Decimal

logger = logging.getLogger(__name__)

SPLIT_RATIO = Decimal("1.5")
"""Ratio between a price and the one before it, in either direction, from which a split is suspected."""
SUSPECTS_SHOWN = 10


def report_split_suspects(before: Mapping[str, Decimal], after: Mapping[str, Decimal], what: str = "prices") -> None:
    """Log the prices that look like a split. They are still used, because nothing shows that they are wrong."""
    jumps = [
        f"{symbol} from {before[symbol]:f} to {price:f}"
        for symbol, price in after.items()
        if symbol in before and not before[symbol] < price * SPLIT_RATIO < before[symbol] * SPLIT_RATIO * SPLIT_RATIO
    ]
    if jumps:
        shown = ", ".join(jumps[:SUSPECTS_SHOWN])
        logger.warning("%d %s look like a stock split and are used unchanged: %s", len(jumps), what, shown)
