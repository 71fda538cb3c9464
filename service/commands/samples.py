"""Sample portfolios, identical on every machine."""

from datetime import date
from decimal import Decimal
from uuid import UUID

from service.database.store import Store
from service.portfolio.records import PositionEntry

USERS = (UUID("aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"), UUID("bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"))
HELD_SINCE = date(2025, 1, 2)

SAMPLES = {
    UUID("11111111-1111-4111-8111-111111111111"): ("Growth", USERS[0], {"AAPL": "25", "MSFT": "12", "NVDA": "40"}),
    UUID("22222222-2222-4222-8222-222222222222"): ("Dividends", USERS[0], {"KO": "150", "PG": "40", "JNJ": "35"}),
    UUID("33333333-3333-4333-8333-333333333333"): (
        "Balanced",
        USERS[1],
        {"AMZN": "30", "KO": "80", "JPM": "22", "XOM": "45.5"},
    ),
    UUID("44444444-4444-4444-8444-444444444444"): ("One share", USERS[1], {"AAPL": "1"}),
    UUID("55555555-5555-4555-8555-555555555555"): ("Fractions", USERS[1], {"NVDA": "0.12345678", "MSFT": "0.5"}),
}


async def load_samples(store: Store) -> list[UUID]:
    """Add the missing sample portfolios, set the sample positions of all of them, and return their ids."""
    await store.put_positions(
        (
            PositionEntry(portfolio_id, user_id, symbol, Decimal(quantity), HELD_SINCE)
            for portfolio_id, (_, user_id, held) in SAMPLES.items()
            for symbol, quantity in held.items()
        ),
        {portfolio_id: name for portfolio_id, (name, _, _) in SAMPLES.items()},
    )
    return list(SAMPLES)
