"""Seeded bugs in the login to Redis and in TLS."""

from tests.mutants.trial import Bug

_FILE = "tests/sidecar/redis/test_password_file.py::test_"
_IAM = "tests/sidecar/redis/test_iam.py::test_"
_TEXTS = "tests/sidecar/redis/test_tls_texts.py::test_"
_FILES = "tests/sidecar/redis/test_tls_files.py::test_"

LOGIN = [
    Bug(
        "the password file is read only at the start",
        "sidecar/redis/connection.py",
        right='        given["credential_provider"] = self.login\n',
        wrong='        given |= {"username": address.username, "password": self.login and self.login.current()[-1]}\n',
        test=_FILE + "the_password_file_is_read_at_each_connect",
    ),
    Bug(
        "a file with several lines is accepted as a password",
        "sidecar/redis/credentials.py",
        right='if "\\n" in secret:',
        wrong="if not secret:",
        test=_FILE + "a_file_without_a_valid_password_is_a_login_failure",
    ),
    Bug(
        "a pipe instead of the password file blocks the sidecar",
        "sidecar/redis/credentials.py",
        right=" | os.O_NONBLOCK",
        wrong="",
        test=_FILE + "a_path_that_is_not_a_readable_file_is_refused_at_start_without_showing_the_path",
    ),
    Bug(
        "two login methods at once are accepted",
        "sidecar/login_settings.py",
        right="        if others:\n",
        wrong="        if not others:\n            pass\n        elif len(others) > 2:\n",
        test=_FILE + "two_login_methods_are_refused_with_both_setting_names",
    ),
]

IAM = [
    Bug(
        "the token is signed without the role's session",
        "sidecar/redis/aws_signature.py",
        right="if keys.session_token is not None else {}",
        wrong="if keys.session_token is None else {}",
        test="tests/sidecar/redis/test_aws_signature.py::test_the_token_equals_that_of_botocore",
    ),
    Bug(
        "a connect waits for a fetch of the role's credentials",
        "sidecar/redis/credentials.py",
        right="        return self.current()\n",
        wrong="        await self.prepare()\n        return self.current()\n",
        test=_IAM + "a_hanging_fetch_does_not_delay_calls",
    ),
    Bug(
        "the role's credentials are fetched only after they have expired",
        "sidecar/redis/iam.py",
        right="self._valid_until - self._now() > AHEAD",
        wrong="self._valid_until > self._now()",
        test=_IAM + "credentials_are_fetched_again_before_they_expire",
    ),
    Bug(
        "a failed fetch discards valid credentials",
        "sidecar/redis/iam.py",
        right="            self._problem = problem\n",
        wrong="            self._problem, self._keys = problem, None\n",
        test=_IAM + "a_failed_fetch_closes_no_connection_while_the_previous_credentials_are_valid",
    ),
    Bug(
        "a failed fetch is not counted",
        "sidecar/redis/iam.py",
        right="            when_failed(problem)\n",
        wrong="",
        test=_IAM + "a_failed_fetch_closes_no_connection_while_the_previous_credentials_are_valid",
    ),
    Bug(
        "expired credentials sign a token",
        "sidecar/redis/iam.py",
        right="if self._keys is None or self._now() >= self._valid_until:",
        wrong="if self._keys is None:",
        test=_IAM + "expired_credentials_are_not_used",
    ),
    Bug(
        "the role's credentials are fetched without TLS from any address",
        "sidecar/iam_settings.py",
        right='        return host == "localhost"\n',
        wrong="        return True\n",
        test=_IAM + "an_invalid_iam_setting_is_a_one_line_error",
    ),
    Bug(
        "an IAM login uses a connection without TLS",
        "sidecar/settings.py",
        right="if login.iam is not None and tls is None and",
        wrong="if login.iam is None and tls is not None and",
        test=_IAM + "an_invalid_iam_setting_is_a_one_line_error",
    ),
    Bug(
        "an answer of an ECS endpoint that is nested too deeply causes a traceback",
        "sidecar/ecs_metadata.py",
        right="except RecursionError:",
        wrong="except ZeroDivisionError:",
        test="tests/sidecar/test_identity.py::test_unreadable_metadata_is_logged_and_a_random_id_is_used[too_deep]",
    ),
    Bug(
        "the connection of the calls is used until the server cuts it",
        "sidecar/redis/store.py",
        right="return self.connected and self._clock() >= self._replace_at",
        wrong="return False",
        test=_IAM + "connections_are_replaced_before_the_cache_closes_them",
    ),
    Bug(
        "the watch's connection is used until the server cuts it",
        "sidecar/redis/watch.py",
        right="            retry_at = min(retry_at, self._clock() + (connection.lifetime() or inf))\n",
        wrong="",
        test=_IAM + "connections_are_replaced_before_the_cache_closes_them",
    ),
    Bug(
        "an old connection is closed before the new connection is open",
        "sidecar/redis/store.py",
        right="        former, connection = self._connection, self._connect()\n",
        wrong="        former, connection = self._connection, self._connect()\n        await self.close()\n",
        test=_IAM + "an_old_connection_stays_open_until_its_replacement_is_connected",
    ),
]

TLS = [
    Bug(
        "a certificate for another name is accepted",
        "sidecar/redis/tls.py",
        right="context.check_hostname = settings.verify and settings.check_name",
        wrong="context.check_hostname = False",
        test=_TEXTS + "a_server_certificate_for_another_name_is_reported_with_that_name",
    ),
    Bug(
        "the system's CAs are trusted in addition to the configured CA",
        "sidecar/redis/tls.py",
        right="if named == (None, None, None) and settings.verify:",
        wrong="if settings.verify:",
        test=_FILES + "only_the_configured_ca_is_trusted",
    ),
    Bug(
        "replaced TLS files are not used",
        "sidecar/redis/tls.py",
        right="if (stamps := self._stamps_now()) != self._stamps:",
        wrong="if not (stamps := self._stamps_now()):",
        test=_TEXTS + "the_next_connection_uses_replaced_tls_files_unless_they_are_invalid",
    ),
    Bug(
        "a partly written TLS file ends the connections",
        "sidecar/redis/tls.py",
        right="            except SettingsError as error:\n                log.warning(",
        wrong="            except ZeroDivisionError as error:\n                log.warning(",
        test=_TEXTS + "the_next_connection_uses_replaced_tls_files_unless_they_are_invalid",
    ),
    Bug(
        "a server's error about the client certificate after the handshake is lost",
        "sidecar/redis/connection.py",
        right="        return self._tls.closed_at_once(error)\n",
        wrong="        return None\n",
        test=_TEXTS + "a_refused_client_certificate_is_reported_with_its_file",
    ),
    Bug(
        "the URL overrides REDIS_TLS=false",
        "sidecar/tls_settings.py",
        right='if asked is False and scheme == "rediss":',
        wrong='if asked is False and scheme == "rediss" and scheme == "redis":',
        test=_FILES + "contradicting_tls_settings_are_refused_with_both_names",
    ),
    Bug(
        "OpenSSL may ask for a key's password on the terminal",
        "sidecar/redis/tls.py",
        right="if encrypted and password is None:",
        wrong="if not encrypted and password is None and not content:",
        test=_FILES + "an_encrypted_key_never_prompts_for_its_password",
    ),
]

BUGS = [*LOGIN, *IAM, *TLS]
