"""Bare subscribers to the channels of a lease: candidates that Redis counts, so that the fleet looks large."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from redis import Redis
from redis.client import PubSub


@contextmanager
def subscribed(redis: Redis, key: str, direct: int, relayed: int) -> Iterator[tuple[list[PubSub], list[PubSub]]]:
    """Subscribe as `direct` candidates with a direct watch, and as `relayed` candidates with a relayed watch."""
    with ExitStack() as open_:
        yield (
            [open_.enter_context(subscriber(redis, f"{key}:changed", f"{key}:direct:changed")) for _ in range(direct)],
            [open_.enter_context(subscriber(redis, f"{key}:vacant:changed")) for _ in range(relayed)],
        )


def message(subscriber: PubSub) -> str:
    """The next message, which must come."""
    received = subscriber.get_message(timeout=30)
    return str(received["data"])


@contextmanager
def subscriber(redis: Redis, *channels: str) -> Iterator[PubSub]:
    """A subscriber to these channels, whose subscriptions Redis has confirmed."""
    with redis.pubsub() as it:  # type: ignore[no-untyped-call]  # redis-py has typed PubSub, but not this method
        it.subscribe(*channels)
        for _ in channels:
            it.get_message(timeout=30)
        yield it
