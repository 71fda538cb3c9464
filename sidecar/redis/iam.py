"""Login by ElastiCache IAM: each connect signs a token with credentials that were fetched in the background.

A token is valid for 15 minutes and logs one connection in. ElastiCache cuts the connection after 12 hours.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp

from runtime.lookup import Lookups
from sidecar.ecs_metadata import get_json
from sidecar.iam_settings import AwsKeys, CredentialsEndpoint, Iam
from sidecar.redis.aws_signature import login_token
from sidecar.redis.credentials import Login, secret_in
from sidecar.redis.failures import CredentialsError
from sidecar.redis.reconnects import reconnect_backoff

log = logging.getLogger(__name__)

LIFETIME = 11 * 3600.0
"""Maximum age at which a connection is replaced, in seconds: an hour before ElastiCache cuts it."""
FETCH_LIMIT = 2.0
"""Limit of a request for the role's credentials, in seconds."""
AHEAD = timedelta(minutes=15)
"""Remaining validity at which the role's credentials are fetched again."""
LOOK = 60.0
"""Seconds between two checks of the validity.

After a failure, pauses are short at first, and grow to half of `LOOK` on average.
"""


class IamLogin(Login):
    """A user who logs in with a signed token.

    Args:
        iam: the cache, and the source of the credentials.
        username: the name of the user in Redis, which is also the user's id at ElastiCache.
        lookups: the name lookups to use for the credentials' endpoint.
        uniform: `random.uniform`; spreads the requests of a fleet.
        now: the time of day in UTC. AWS rejects signatures from a wrong clock.
        lifetime: see `LIFETIME`.
    """

    hint = (
        "; with REDIS_IAM this usually means that no cache has that name and region, that the role has no permission"
        " elasticache:Connect for the cache and for the user, or that the clock is wrong"
    )

    def __init__(
        self,
        iam: Iam,
        username: str,
        lookups: Lookups,
        *,
        uniform: Callable[[float, float], float],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        lifetime: float = LIFETIME,
    ) -> None:
        super().__init__()
        self._iam = iam
        self._username = username
        self._uniform = uniform
        self._now = now
        self._lifetime = lifetime
        source = iam.source
        self._role = _Role(source, lookups, uniform, now) if isinstance(source, CredentialsEndpoint) else _Fixed(source)

    def connection_lifetime(self) -> float:
        """Seconds until a replacement, varied so that a fleet does not replace its connections at the same time."""
        return self._lifetime * self._uniform(0.9, 1.0)

    async def prepare(self) -> None:
        """Fetch the role's credentials once."""
        await self._role.fetch(self.when_failed)

    async def run(self) -> None:
        """Keep the role's credentials fresh."""
        await self._role.keep_fresh(self.when_failed)

    def current(self) -> tuple[str, str]:
        """The user and a fresh token.

        Raises:
            CredentialsError: no valid credentials are available.
        """
        return self._username, login_token(self._iam, self._username, self._role.keys(), self._now())


class _Fixed:
    """Credentials that never change."""

    def __init__(self, keys: AwsKeys) -> None:
        self._keys = keys

    def keys(self) -> AwsKeys:
        return self._keys

    async def keep_fresh(self, when_failed: Callable[[str], None]) -> None:
        pass

    async def fetch(self, when_failed: Callable[[str], None]) -> None:
        pass


class _Role:
    """The credentials of the task's role, fetched from the endpoint that ECS serves."""

    def __init__(
        self,
        endpoint: CredentialsEndpoint,
        lookups: Lookups,
        uniform: Callable[[float, float], float],
        now: Callable[[], datetime],
    ) -> None:
        self._endpoint = endpoint
        self._lookups = lookups
        self._now = now
        self._pauses = reconnect_backoff(LOOK / 2, uniform)
        self._keys: AwsKeys | None = None
        self._valid_until = datetime.min.replace(tzinfo=UTC)
        self._problem: str | None = "they have not been fetched yet"

    def keys(self) -> AwsKeys:
        """The credentials, while they are valid.

        Raises:
            CredentialsError: no credentials are available.
        """
        if self._keys is None or self._now() >= self._valid_until:
            expired = "" if self._keys is None else "the previous credentials have expired, and "
            problem = self._problem or "new ones have not been fetched yet"  # as after a suspension
            raise CredentialsError(f"REDIS_IAM: no credentials of the task's role: {expired}{problem}")
        return self._keys

    async def keep_fresh(self, when_failed: Callable[[str], None]) -> None:
        """Fetch the credentials before they expire, until cancelled."""
        while True:
            if self._problem is None and self._valid_until - self._now() > AHEAD:
                self._pauses.reset()
                await asyncio.sleep(LOOK)
            else:
                await asyncio.sleep(self._pauses.next())
                await self.fetch(when_failed)

    async def fetch(self, when_failed: Callable[[str], None]) -> None:
        """Fetch the credentials once. A failure is logged unless the attempt before it failed for the same reason.

        While no credentials are available, each connection fails with the reason.
        """
        try:
            answer = await get_json(
                self._endpoint.url, self._lookups, limit=FETCH_LIMIT, headers=_authorization(self._endpoint)
            )
            keys, valid_until = _parsed(answer)
        except (aiohttp.ClientError, TimeoutError, ValueError, CredentialsError) as error:
            problem = _told(error)
            if self._problem != problem:
                left = max(0.0, (self._valid_until - self._now()).total_seconds())
                previous = (
                    f"the previous credentials are valid for {left:.0f} s more"
                    if self._keys
                    else "there are no previous credentials"
                )
                log.warning(
                    "REDIS_IAM: the credentials of the task's role cannot be fetched: %s; %s", problem, previous
                )
            self._problem = problem
            when_failed(problem)
        else:
            if self._problem is not None and self._keys is not None:
                log.info("The credentials of the task's role have been fetched again")
            self._keys, self._valid_until, self._problem = keys, valid_until, None


def _authorization(endpoint: CredentialsEndpoint) -> dict[str, str]:
    token = endpoint.token
    if endpoint.token_file is not None:
        token = secret_in(endpoint.token_file, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
    return {} if token is None else {"Authorization": token}


def _parsed(answer: Any) -> tuple[AwsKeys, datetime]:
    """The credentials in an answer, and the time of their expiry.

    Raises:
        ValueError: the answer contains no credentials. The text repeats no part of the answer.
    """
    try:
        keys = AwsKeys(*(answer[name] for name in ("AccessKeyId", "SecretAccessKey", "Token")))
        valid_until = datetime.fromisoformat(answer["Expiration"])
        if not all(isinstance(each, str) and each for each in (keys.key_id, keys.secret, keys.session_token)):
            raise TypeError
        return keys, valid_until if valid_until.tzinfo is not None else valid_until.replace(tzinfo=UTC)
    except (KeyError, TypeError, ValueError):
        raise ValueError("the answer contains no credentials") from None


def _told(error: Exception) -> str:
    """The reason of a failed fetch, without the endpoint's address, which grants access to the role."""
    if isinstance(error, CredentialsError):
        return str(error)
    if isinstance(error, TimeoutError):
        return f"the credentials endpoint does not answer within {FETCH_LIMIT:g} s"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"the credentials endpoint answers with status {error.status}"
    if isinstance(error, aiohttp.ClientError):
        return f"the credentials endpoint cannot be reached ({type(error).__name__})"
    return "the credentials endpoint does not answer with credentials"
