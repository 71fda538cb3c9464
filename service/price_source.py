"""The price source that the settings select."""

from collections.abc import Callable
from datetime import datetime

from service.market.calendar import Calendar
from service.prices import LATEST_TIMEOUT, PriceSource
from service.prices.alpaca import TRIALS_PER_MINUTE, AlpacaPrices
from service.prices.alpaca_client import AlpacaClient, Credentials
from service.prices.simulated import SimulatedPrices
from service.settings import Settings, SettingsError

TICK_SHARE = 0.8
"""Share of the tick's price timeout that the source uses, so that it can return at least some prices in time."""


def price_source(settings: Settings, calendar: Calendar, now: Callable[[], datetime]) -> PriceSource:
    """The source that `PRICE_SOURCE` names.

    Raises:
        SettingsError: PRICE_SOURCE is missing. It has no default, because simulated prices must be an explicit choice.
    """
    if settings.price_source is None:
        raise SettingsError("PRICE_SOURCE: missing; choose alpaca, or simulated for made-up prices")
    if settings.price_source == "simulated":
        return SimulatedPrices(settings.price_seed, calendar, now)
    key_id, secret_key = settings.apca_api_key_id, settings.apca_api_secret_key
    if key_id is None or secret_key is None:
        raise ValueError("settings were not checked")
    return AlpacaPrices(
        AlpacaClient(settings.alpaca_data_url, Credentials(key_id, secret_key)),
        calendar,
        feed=settings.alpaca_feed,
        budget=min(settings.tracker_interval, LATEST_TIMEOUT) * TICK_SHARE,
        now=now,
        trials_at_once=TRIALS_PER_MINUTE * min(settings.tracker_interval / 60, 1.0),
    )
