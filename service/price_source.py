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
"""Share of a tick that a request for the latest prices may take. It is below the tracker's own limit, so that the
prices received by then are used."""


def price_source(settings: Settings, calendar: Calendar, now: Callable[[], datetime]) -> PriceSource:
    """The source that `PRICE_SOURCE` names.

    Raises:
        SettingsError: PRICE_SOURCE is missing. It has no default, because made-up prices must be chosen on purpose.
    """
    if settings.price_source is None:
        raise SettingsError("PRICE_SOURCE: missing; set alpaca, or simulated, which makes every price up")
    if settings.price_source == "simulated":
        return SimulatedPrices(settings.price_seed, calendar, now)
    key_id, secret_key = settings.apca_api_key_id, settings.apca_api_secret_key
    if key_id is None or secret_key is None:
        raise ValueError("the settings were not validated")
    return AlpacaPrices(
        AlpacaClient(settings.alpaca_data_url, Credentials(key_id, secret_key)),
        calendar,
        feed=settings.alpaca_feed,
        budget=min(settings.tracker_interval, LATEST_TIMEOUT) * TICK_SHARE,
        now=now,
        trials_at_once=TRIALS_PER_MINUTE * settings.tracker_interval / 60,
    )
