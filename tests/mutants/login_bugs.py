"""Seeded bugs in authentication, in the login to the database, and in the checks of a portfolio's owner."""

from tests.mutants.trial import Bug

_AUTH = "tests/service/api/test_auth.py::test_"
_URL = "tests/service/database/test_database_url.py::test_"
_REFUSED = "tests/service/database/test_refused_connections.py::test_"
_STREAMS = "tests/service/api/test_stream_owners.py::test_"
_ROLE = "tests/service/database/test_service_role.py::test_"

BUGS = [
    Bug(
        "a connection to another machine does not need encryption",
        "service/database/database_url.py",
        right="if weak and not all(is_local(host)",
        wrong="if weak and not any(is_local(host)",
        test=_URL + "a_remote_host_must_use_tls_unless_the_address_says_otherwise",
    ),
    Bug(
        "PGSSLMODE can turn encryption off",
        "service/database/database_url.py",
        right='environment.get("PGSSLMODE") not in STRICT_MODES',
        wrong='environment.get("PGSSLMODE") is None',
        test=_URL + "a_libpq_variable_may_require_more_encryption_but_not_less",
    ),
    Bug(
        "an option of another driver is passed to the server",
        "service/database/database_url.py",
        right='if name not in KNOWN and "." not in name:',
        wrong='if name not in KNOWN and "" not in name:',
        test=_URL + "an_option_of_another_driver_is_named_and_refused",
    ),
    Bug(
        "the error for a wrong password does not name the setting",
        "service/database/server_refusals.py",
        right='LASTING_STATES = ("28", ',
        wrong="LASTING_STATES = (",
        test=_REFUSED + "a_wrong_password_is_logged_and_in_the_internal_healthz_and_retried",
    ),
    Bug(
        "the project's API keys count as user tokens",
        "service/api/auth.py",
        right="if role in PROJECT_KEYS:",
        wrong="if role == PROJECT_KEYS:",
        test=_AUTH + "only_a_signed_in_user_is_admitted_and_others_are_given_the_reason",
    ),
    Bug(
        "the role of a token is not checked",
        "service/api/auth.py",
        right="if role != USER_ROLE:",
        wrong='if role == "":',
        test=_AUTH + "only_a_signed_in_user_is_admitted_and_others_are_given_the_reason",
    ),
    Bug(
        "tokens of anonymous users are accepted",
        "service/api/auth.py",
        right='if claims.get("is_anonymous"):',
        wrong='if claims.get("anonymous"):',
        test=_AUTH + "only_a_signed_in_user_is_admitted_and_others_are_given_the_reason",
    ),
    Bug(
        "each token from another issuer is logged",
        "service/api/hourly_warnings.py",
        right="self._logged_at[kind] = now",
        wrong="self._logged_at[str(now)] = now",
        test=_AUTH + "a_possibly_wrong_setting_is_one_warning_an_hour_however_many_tokens_come",
    ),
    Bug(
        "a stream shows a portfolio to its former owner",
        "service/api/streams.py",
        right="if owner is None or not subscriber.may_see(owner):",
        wrong="if owner is None:",
        test=_STREAMS + "an_owner_change_without_notification_is_found_before_a_later_value_is_shown",
    ),
    Bug(
        "the owner of a history is checked only before the read",
        "service/api/routes.py",
        right="if await self._access.store.owner(portfolio_id) != owner:",
        wrong="if await self._access.store.owner(portfolio_id) is None:",
        test=_STREAMS + "a_portfolio_that_changes_owner_between_check_and_read_is_not_shown",
    ),
    Bug(
        "a new owner is noticed only at the next value",
        "service/database/live_notifications.py",
        right="for channel in (LIVE_CHANNEL, OWNER_CHANNEL):",
        wrong="for channel in (LIVE_CHANNEL,):",
        test=_STREAMS + "a_stream_ends_when_the_portfolio_changes_owner_even_without_a_new_value",
    ),
    Bug(
        "a login without rights sees an empty database instead of an error",
        "service/database/transactions.py",
        right="        if role is not None:\n            raise StoreError(",
        wrong='        if role == "":\n            raise StoreError(',
        test=_ROLE + "a_login_without_the_role_is_reported_with_the_remedy_and_works_once_it_has_the_role",
    ),
    Bug(
        "the service's role cannot create partitions",
        "supabase/migrations/20261128160000_service_role.sql",
        right="alter function public.make_intraday_partition(date) security definer set",
        wrong="alter function public.make_intraday_partition(date) set",
        test=_ROLE + "the_whole_service_works_as_a_login_that_row_level_security_covers",
    ),
    Bug(
        "a function with the owner's rights uses the caller's temporary tables",
        "supabase/migrations/20261128160000_service_role.sql",
        right="drop_intraday_partitions(date) security definer set search_path = pg_catalog, pg_temp;",
        wrong="drop_intraday_partitions(date) security definer;",
        test=_ROLE + "the_owners_functions_ignore_the_callers_temporary_tables",
    ),
]
