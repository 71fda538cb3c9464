"""Prices that jump as at a split."""

import logging
from collections.abc import Mapping
from decimal import Decimal

logger = logging.getLogger(__name__)

JUMP = Decimal("1.5")
"""How many times a price must be the one before it, or the other way round, to look like a split."""
JUMPS_SHOWN = 10


def report_jumps(before: Mapping[str, Decimal], after: Mapping[str, Decimal], what: str = "prices") -> None:
    """Say in the log which prices jump as at a split. They are taken as they are: to refuse one is to guess."""
    jumps = [
        f"{symbol} from {before[symbol]:f} to {price:f}"
        for symbol, price in after.items()
        if symbol in before and not before[symbol] < price * JUMP < before[symbol] * JUMP * JUMP
    ]
    if jumps:
        shown = ", ".join(jumps[:JUMPS_SHOWN])
        logger.warning("%d %s jump as at a split and are taken as they are: %s", len(jumps), what, shown)
