"""The check before an acquire: the connected server must be the primary.

With sentinels, a majority of the sentinels must confirm this.
"""

from collections.abc import Sequence

from sidecar.protocol import Kind, Reply
from sidecar.redis.connection import RedisConnection
from sidecar.redis.failures import Failure, OtherPrimary, failure_of
from sidecar.redis.script_calls import KeyedCall


def has_acquire(calls: Sequence[KeyedCall]) -> bool:
    """Whether any of the calls is an acquire."""
    return any(keyed.call.kind is Kind.ACQUIRE for keyed in calls)


async def unassured(connection: RedisConnection) -> Failure | None:
    """Check that the connected server is still the primary.

    Returns None if it is. If the check fails, returns the failure that every acquire gets.

    Raises:
        OtherPrimary: another server is the primary.
    """
    try:
        await connection.assure()
    except OtherPrimary:
        raise
    except Exception as error:  # noqa: BLE001 - any error from a sentinel's answer withholds only the acquires
        return failure_of(error, may_execute=False)
    return None


def with_acquires(
    calls: Sequence[KeyedCall], withheld: Failure, results: Sequence[Reply | Failure]
) -> list[Reply | Failure]:
    """The results of all calls: `withheld` for each acquire, and `results`, in order, for the other calls."""
    others = iter(results)
    return [withheld if keyed.call.kind is Kind.ACQUIRE else next(others) for keyed in calls]
