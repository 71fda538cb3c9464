"""Which source of prices the settings ask for."""

from collections.abc import Callable
from datetime import datetime

from service.market.calendar import Calendar
from service.prices import PRICE_LIMIT, PriceSource
from service.prices.alpaca import TRIALS_A_MINUTE, AlpacaPrices
from service.prices.alpaca_client import AlpacaClient, Credentials
from service.prices.simulated import SimulatedPrices
from service.settings import Settings, SettingsError

TICK_SHARE = 0.8
"""How much of a tick the latest prices may take: less than the tracker gives them, so that a part comes in."""


def price_source(settings: Settings, calendar: Calendar, now: Callable[[], datetime]) -> PriceSource:
    """The source that `PRICE_SOURCE` names.

    Raises:
        SettingsError: it names none. There is no default: what is made up must have been asked for.
    """
    if settings.price_source is None:
        raise SettingsError("PRICE_SOURCE: missing; it is alpaca, or simulated, which makes every price up")
    if settings.price_source == "simulated":
        return SimulatedPrices(settings.price_seed, calendar, now)
    key_id, secret_key = settings.apca_api_key_id, settings.apca_api_secret_key
    if key_id is None or secret_key is None:
        raise ValueError("settings that have not been checked")
    return AlpacaPrices(
        AlpacaClient(settings.alpaca_data_url, Credentials(key_id, secret_key)),
        calendar,
        feed=settings.alpaca_feed,
        budget=min(settings.tracker_interval, PRICE_LIMIT) * TICK_SHARE,
        now=now,
        trials_at_once=TRIALS_A_MINUTE * settings.tracker_interval / 60,
    )
