"""`python -m service token --user UUID`: an access token for development, signed with the shared secret."""

import argparse
import sys
import time
from uuid import UUID

import jwt

from service.api.auth import AUDIENCE, USER_ROLE, issuer_of
from service.commands.output import Parser, print_error
from service.settings import AuthSettings, SettingsError, read_auth_settings


def command(options: list[str]) -> int:
    """Print a token, and return the exit status."""
    parser = Parser(
        prog="python -m service token",
        description="Print a development access token, signed with SUPABASE_JWT_SECRET. "
        'Use: curl -H "Authorization: Bearer $(python -m service token --user UUID)" ...',
    )
    parser.add_argument("--user", type=_uuid, required=True, metavar="UUID", help="the user of the token")
    parser.add_argument(
        "--hours", type=_hours, default=1.0, metavar="N", help="hours for which the token is valid (default: 1)"
    )
    arguments = parser.parse_args(options)
    try:
        token = development_token(read_auth_settings(), arguments.user, now=time.time(), hours=arguments.hours)
    except SettingsError as error:
        print_error(error)
        return 2
    sys.stdout.write(f"{token}\n")
    return 0


def development_token(settings: AuthSettings, user_id: UUID, *, now: float, hours: float) -> str:
    """An access token for a user, with the claims that the service checks.

    Args:
        settings: the settings with the project and the shared secret.
        user_id: the user.
        now: seconds since the epoch.
        hours: validity of the token.

    Raises:
        SettingsError: the project or the shared secret is missing.
    """
    if settings.supabase_url is None:
        raise SettingsError("SUPABASE_URL: missing; the token names it as the issuer")
    if settings.supabase_jwt_secret is None:
        raise SettingsError("SUPABASE_JWT_SECRET: missing; the token is signed with it")
    claims = {
        "iss": issuer_of(settings.supabase_url),
        "aud": AUDIENCE,
        "role": USER_ROLE,
        "sub": str(user_id),
        "iat": int(now),
        "exp": int(now + hours * 3600),
    }
    return jwt.encode(claims, settings.supabase_jwt_secret.get_secret_value(), algorithm="HS256")


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError("not a UUID") from None


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours <= 24 * 365:
        raise argparse.ArgumentTypeError("not a number of hours above 0, at most 8760")
    return hours
