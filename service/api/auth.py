"""Authentication with Supabase's access tokens.

The signature of a token is checked with one of the project's published public keys (ES256, RS256), or with the shared
secret of an older project (HS256). Each key works with one algorithm only, so that a public key is never used as a
shared secret. Issuer, audience, expiry, role and user are required and checked. The project's own keys (`anon`,
`service_role`) are signed like a user's token and are refused. Tokens of anonymous users are refused, because such a
user can be created without credentials.
"""

import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import jwt
from jwt.types import Options
from pydantic import SecretStr

from runtime.escape import one_line
from service.api.hourly_warnings import HourlyWarnings
from service.api.jwks import KeySet, UnknownKey
from service.settings import AuthSettings, SettingsError

AUDIENCE = "authenticated"
USER_ROLE = "authenticated"
PROJECT_KEYS = ("anon", "service_role")
"""Roles of the project's own keys."""
LEEWAY = 10.0
"""Tolerated difference between the issuer's clock and this machine's, in seconds."""
MAX_ISSUER = 200
"""Limit of a token's issuer in the log, in characters."""
NOT_VALID = "the access token is not valid"

BEARER = re.compile(r"bearer +([A-Za-z0-9_=-]+\.[A-Za-z0-9_=-]+\.[A-Za-z0-9_=-]+) *", re.IGNORECASE)


logger = logging.getLogger(__name__)


class Unauthorized(Exception):
    """The caller is not authenticated. The text is safe to send to the caller."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated user, and when the authentication expires."""

    user_id: UUID | None
    """None if authentication is off: the caller may do everything."""
    expires_at: float | None = None
    """Seconds since the epoch; None means never."""

    def may_see(self, owner: UUID) -> bool:
        """Whether the caller may see that user's portfolios."""
        return self.user_id is None or self.user_id == owner


class Guard(Protocol):
    """Authenticates requests."""

    async def caller(self, authorization: str | None) -> Caller:
        """The caller that an `Authorization` header belongs to.

        Raises:
            Unauthorized: the header is missing, or its token is invalid.
            service.api.jwks.KeysUnavailable: the token cannot be checked now.
        """

    async def aclose(self) -> None:
        """Close the connections."""


class OpenGuard:
    """Accepts every request, for development."""

    async def caller(self, authorization: str | None) -> Caller:  # noqa: ARG002 - `TokenGuard` reads it
        """Return a caller that may do everything."""
        return Caller(None)

    async def aclose(self) -> None:
        """Do nothing: there are no connections."""


class TokenGuard:
    """Admits users with a valid access token of the project."""

    def __init__(
        self,
        project_url: str,
        keys: KeySet,
        shared_secret: SecretStr | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer_of(project_url)
        self._keys = keys
        self._shared_secret = shared_secret
        self._warnings = HourlyWarnings(logger, clock)

    async def caller(self, authorization: str | None) -> Caller:
        """The user that the token belongs to."""
        if authorization is None:
            raise Unauthorized("an access token is needed")
        found = BEARER.fullmatch(authorization)
        if found is None:
            raise Unauthorized("the Authorization header is not of the form 'Bearer TOKEN'")
        token = found[1]
        algorithm, key = await self._key(token)
        try:
            # `_user` checks issuer and audience, and explains each refusal.
            options: Options = {"require": ["exp"], "verify_aud": False}
            return self._user(jwt.decode(token, key, algorithms=[algorithm], leeway=LEEWAY, options=options))
        except jwt.ExpiredSignatureError:
            raise Unauthorized("the access token has expired") from None
        except jwt.InvalidSignatureError:
            if algorithm == "HS256":
                self._warnings.warn("SUPABASE_JWT_SECRET: an access token was not signed with it; refused")
            raise Unauthorized(NOT_VALID) from None
        except (jwt.PyJWTError, ValueError, OverflowError, RecursionError):
            raise Unauthorized(NOT_VALID) from None

    async def aclose(self) -> None:
        """Close the connections."""
        await self._keys.aclose()

    def _user(self, claims: Mapping[str, Any]) -> Caller:
        """The user that the claims name. The signature and the expiry have been checked.

        Raises:
            Unauthorized: the claims do not name a signed-in user of the project.
            ValueError: the user's id is not a UUID.
        """
        role, audience = claims.get("role"), claims.get("aud")
        if role in PROJECT_KEYS:
            raise Unauthorized(f"the token is the project's {role} key; the access token of a signed-in user is needed")
        if claims.get("iss") != self._issuer:
            named = one_line(repr(claims.get("iss")), MAX_ISSUER)
            self._warnings.warn(
                "SUPABASE_URL: a signed access token names the issuer %s, not %s; refused",
                named,
                self._issuer,
            )
            raise Unauthorized(NOT_VALID)
        if audience != AUDIENCE and not (isinstance(audience, list) and AUDIENCE in audience):
            raise Unauthorized(f"the access token is not for the audience '{AUDIENCE}'")
        if role != USER_ROLE:
            raise Unauthorized(f"the access token is not of the role '{USER_ROLE}'")
        if claims.get("is_anonymous"):
            raise Unauthorized("the access token is of an anonymous user; sign in")
        return Caller(UUID(claims.get("sub", "")), float(claims["exp"]) + LEEWAY)

    async def _key(self, token: str) -> tuple[str, Any]:
        """The algorithm that this token must be signed with, and the key that checks the signature."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise Unauthorized(NOT_VALID) from None
        match header:
            case {"alg": "HS256"} if self._shared_secret is not None:
                return "HS256", self._shared_secret.get_secret_value()
            case {"alg": "ES256" | "RS256" as algorithm, "kid": str(kid)}:
                try:
                    return algorithm, await self._keys.key(kid, algorithm)
                except UnknownKey:
                    self._warnings.warn(
                        "SUPABASE_URL: an access token names a key that the project does not publish; refused"
                    )
                    raise Unauthorized(NOT_VALID) from None
            case {"alg": "HS256"}:
                self._warnings.warn("SUPABASE_JWT_SECRET: missing, but an access token is signed with HS256; refused")
        raise Unauthorized(NOT_VALID)


def guard_from(settings: AuthSettings) -> Guard:
    """The guard that the settings select.

    Raises:
        SettingsError: the settings have neither a project nor AUTH=off.
    """
    if settings.auth == "off":
        return OpenGuard()
    if settings.supabase_url is None:
        raise SettingsError("SUPABASE_URL: missing; or set AUTH=off, which lets everybody read and change everything")
    return TokenGuard(settings.supabase_url, KeySet(settings.supabase_url), settings.supabase_jwt_secret)


def issuer_of(project_url: str) -> str:
    """The issuer that a project's tokens name."""
    return f"{project_url}/auth/v1"
