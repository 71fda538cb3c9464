"""Who asks: Supabase's access tokens.

A token is signed with one of the project's published keys (ES256, RS256), or with the shared secret of an older project
(HS256). Which algorithm counts is for the key to say, not the token: a public key is never taken for a shared secret.
Issuer, audience, expiry, role and user are checked; all five must be there. The project's own keys (`anon`,
`service_role`) are signed like a user's token, and are no user. Nor is an anonymous one, whom anybody can make.
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
"""Roles of the tokens that a project has for itself."""
LEEWAY = 10.0
"""Seconds by which the issuer's clock and ours may differ."""
ISSUER_SHOWN = 200
"""Characters of a token's issuer in the log."""
NOT_VALID = "the access token is not valid"

BEARER = re.compile(r"bearer +([A-Za-z0-9_=-]+\.[A-Za-z0-9_=-]+\.[A-Za-z0-9_=-]+) *", re.IGNORECASE)


logger = logging.getLogger(__name__)


class Unauthorized(Exception):
    """Nobody that we know asks; the text may be told to whoever it is."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and until when we may take that for granted."""

    user_id: UUID | None
    """None: anybody, who may do everything."""
    expires_at: float | None = None
    """Seconds since the epoch; None: never."""

    def may_see(self, owner: UUID) -> bool:
        """Whether that user's portfolios are the caller's own."""
        return self.user_id is None or self.user_id == owner


class Guard(Protocol):
    """Tells who asks."""

    async def caller(self, authorization: str | None) -> Caller:
        """Who sends that `Authorization` header.

        Raises:
            Unauthorized: nobody that we know.
            service.jwks.KeysUnavailable: it cannot be told now.
        """

    async def aclose(self) -> None:
        """Give up what is held open."""


class OpenGuard:
    """Lets everybody in; for trying things out."""

    async def caller(self, authorization: str | None) -> Caller:  # noqa: ARG002 - the protocol's
        """Anybody."""
        return Caller(None)

    async def aclose(self) -> None:
        """Nothing is held open."""


class TokenGuard:
    """Lets in whoever has a valid access token of the project."""

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
        """The user whose token it is."""
        if authorization is None:
            raise Unauthorized("an access token is needed")
        found = BEARER.fullmatch(authorization)
        if found is None:
            raise Unauthorized("not of the form 'Bearer TOKEN'")
        token = found[1]
        algorithm, key = await self._key(token)
        try:
            # Issuer and audience are checked by `_user`, which knows what to say.
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
        """Whose token that is, by the claims of one that is well signed and has not expired.

        Raises:
            Unauthorized: no user of the project.
            ValueError: the user's id is not a UUID.
        """
        role, audience = claims.get("role"), claims.get("aud")
        if role in PROJECT_KEYS:
            raise Unauthorized(f"the token is the project's {role} key; the access token of a signed-in user is needed")
        if claims.get("iss") != self._issuer:
            named = one_line(repr(claims.get("iss")), ISSUER_SHOWN)
            self._warnings.warn(
                "SUPABASE_URL: a well signed access token names the issuer %s, not %s; refused", named, self._issuer
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
        """The only algorithm that this token may be signed by, and the key for it."""
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
                self._warnings.warn("SUPABASE_JWT_SECRET: missing, and an access token says that it needs it; refused")
        raise Unauthorized(NOT_VALID)


def guard_by(settings: AuthSettings) -> Guard:
    """The guard that the settings ask for.

    Raises:
        SettingsError: they do not say who may come in.
    """
    if settings.auth == "off":
        return OpenGuard()
    if settings.supabase_url is None:
        raise SettingsError("SUPABASE_URL: missing; or set AUTH=off, which lets everybody read and change everything")
    return TokenGuard(settings.supabase_url, KeySet(settings.supabase_url), settings.supabase_jwt_secret)


def issuer_of(project_url: str) -> str:
    """What a project's tokens name as their issuer."""
    return f"{project_url}/auth/v1"
