"""An operator's request to step down, as the script of `python -m sidecar step-down` writes it to Redis."""

from redis import Redis

from sidecar.protocol import STEP_DOWN_NOTICE
from sidecar.redis.store import fence_of


def step_down(redis: Redis, key: str, *, token: str | None = None, notice: bool = True) -> str:
    """Request the end of the term with this token, by default of the current term. Returns the token."""
    token = token or str(redis.hget(fence_of(key), "token"))
    redis.hset(fence_of(key), "step_down", token)
    if notice:
        redis.publish(f"{key}:changed", STEP_DOWN_NOTICE)
    return token
