"""TLS for connections to Redis: one context, renewed when a file changes, and readable errors.

OpenSSL's errors name neither the setting nor the file that must change. The errors of `Tls` name them where possible: a
`SettingsError` for a file that cannot be used at the start, and a `TlsError` for a failed handshake.
"""

import logging
import os
import ssl
from datetime import UTC, datetime
from pathlib import Path

from sidecar.redis.failures import TlsError
from sidecar.settings import SettingsError
from sidecar.tls_settings import File, TlsSettings

log = logging.getLogger(__name__)

_EXPIRED, _NOT_YET, _OTHER_NAME, _OTHER_ADDRESS = 10, 9, 62, 64
"""Results of the verification of a certificate, as OpenSSL numbers them."""
_NOT_TLS = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")
_NO_COMMON_VERSION = ("UNSUPPORTED_PROTOCOL", "PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE")
_ABOUT_OUR_CERTIFICATE = {
    "CERTIFICATE_EXPIRED": "it has expired",
    "UNKNOWN_CA": "the server does not trust its CA",
    "CERTIFICATE_REVOKED": "it is revoked",
    "BAD_CERTIFICATE": "the server finds it invalid",
    "UNSUPPORTED_CERTIFICATE": "the server does not support its kind",
    "CERTIFICATE_UNKNOWN": "the server finds it invalid",
    "DECRYPT_ERROR": "the server finds its signature invalid",
}
"""Alerts of the server about the sidecar's certificate, and their meaning."""

_Stamp = tuple[int, int, int] | None


class Tls:
    """The TLS context of the connections to one Redis.

    Args:
        settings: the checks of the server's certificate, and the sidecar's own certificate.

    Raises:
        SettingsError: a file or an option cannot be used. The text is one line that names the setting and the file.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self._stamps = self._stamps_now()
        self._context = _context(settings)

    def context(self) -> ssl.SSLContext:
        """The context for a new connection.

        Changed files are read again; if they are invalid, the old context stays.
        """
        if (stamps := self._stamps_now()) != self._stamps:
            self._stamps = stamps
            try:
                self._context = _context(self._settings)
            except SettingsError as error:
                log.warning("The changed TLS files cannot be used; the previous files stay in use: %s", error)
            else:
                log.info("The changed TLS files are in use")
        return self._context

    @property
    def plain_instead(self) -> str:
        """The setting that turns TLS off."""
        return "redis:// in REDIS_URL" if self._settings.asked_by == "REDIS_URL" else "REDIS_TLS=false"

    def failed_handshake(self, error: OSError, host: str) -> TlsError:
        """The reason why a handshake failed.

        Args:
            error: the error of OpenSSL, the event loop or the network.
            host: the name that the server's certificate must have.
        """
        if isinstance(error, ssl.SSLCertVerificationError):
            return TlsError(f"{self._verification(error, host)} (certificate verify failed: {error.verify_message})")
        reason = _reason(error)
        if any(each in reason for each in _NOT_TLS):
            return TlsError(f"the server does not speak TLS; use {self.plain_instead} ({reason})")
        if any(each in reason for each in _NO_COMMON_VERSION):
            return TlsError(f"the server has no TLS version of {self._settings.min_version} or later ({reason})")
        return self._refusal(reason) or TlsError(
            f"the TLS handshake failed ({reason}); if the server does not speak TLS, use {self.plain_instead}"
        )

    def closed_at_once(self, error: Exception | None) -> TlsError:
        """The reason why a connection ended after the handshake, before the server sent anything.

        With TLS 1.3 a server checks the sidecar's certificate only after the handshake.
        """
        return (None if error is None else self._refusal(_reason(error))) or TlsError(
            "the server has closed the connection after the TLS handshake; it may ask for a client's certificate, or"
            " refuse the certificate: see REDIS_TLS_CERT_FILE"
        )

    def _verification(self, error: ssl.SSLCertVerificationError, host: str) -> str:
        ca = self._settings.ca
        if error.verify_code in (_OTHER_NAME, _OTHER_ADDRESS):
            return f"the server's certificate is not valid for {host!r}, the host of this connection"
        if error.verify_code == _EXPIRED:
            if ca is not None and _all_expired(self._context):
                return f"the certificate of the CA in {ca} has expired"
            return "the server's certificate has expired"
        if error.verify_code == _NOT_YET:
            return "the server's certificate is not valid yet, by the clock of this machine"
        if ca is not None:
            return f"the CA of the server's certificate is not in {ca}"
        if self._settings.ca_data is not None or self._settings.ca_folder is not None:
            return "the CA of the server's certificate is not among those that REDIS_URL names"
        return "the CA of the server's certificate is not one that this system trusts: name it in REDIS_TLS_CA_FILE"

    def _refusal(self, reason: str) -> TlsError | None:
        """The meaning of a server's alert about the sidecar's certificate or ciphers; None for other alerts."""
        ours = self._settings.certificate
        text = None
        if "CERTIFICATE_REQUIRED" in reason or ("HANDSHAKE_FAILURE" in reason and ours is None):
            text = "the server asks for a client's certificate, or accepts no cipher: see REDIS_TLS_CERT_FILE"
        elif "HANDSHAKE_FAILURE" in reason or "NO_SHARED_CIPHER" in reason:
            text = "the server accepts none of the ciphers: see ssl_ciphers in REDIS_URL"
        elif ours is not None:
            meanings = [meaning for alert, meaning in _ABOUT_OUR_CERTIFICATE.items() if alert in reason]
            text = f"the server refuses the certificate in {ours}: {meanings[0]}" if meanings else None
        return None if text is None else TlsError(f"{text} ({reason})")

    def _stamps_now(self) -> list[_Stamp]:
        named = (self._settings.ca, self._settings.certificate, self._settings.key)
        return [_stamp(file.path) for file in named if file is not None]


def _reason(error: Exception) -> str:
    """OpenSSL's name of an error, or else the name of its class."""
    return getattr(error, "reason", None) or type(error).__name__


def _stamp(path: str) -> _Stamp:
    """A stamp that changes when the file is replaced or written; None if the file does not exist."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _context(settings: TlsSettings) -> ssl.SSLContext:
    named = (settings.ca, settings.ca_folder, settings.ca_data)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = settings.verify and settings.check_name
    context.verify_mode = ssl.CERT_REQUIRED if settings.verify else ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion[settings.min_version.replace(".", "_")]
    if settings.ca is not None:
        _trust(context, settings.ca)
    if settings.ca_folder is not None and not Path(settings.ca_folder.path).is_dir():
        raise SettingsError(settings.ca_folder.line("is not a folder"))
    if settings.ca_folder is not None or settings.ca_data is not None:
        try:
            context.load_verify_locations(
                capath=None if settings.ca_folder is None else settings.ca_folder.path, cadata=settings.ca_data
            )
        except (ssl.SSLError, ValueError):
            raise SettingsError("REDIS_URL: the option 'ssl_ca_data' contains no certificate in PEM") from None
    if named == (None, None, None) and settings.verify:
        context.load_default_certs()
    if settings.certificate is not None:
        _show(context, settings.certificate, settings.key or settings.certificate, settings.key_password)
    if settings.ciphers is not None:
        try:
            context.set_ciphers(settings.ciphers)
        except ssl.SSLError:
            raise SettingsError("REDIS_URL: the option 'ssl_ciphers' names no cipher that OpenSSL knows") from None
    return context


def _trust(context: ssl.SSLContext, ca: File) -> None:
    _content(ca)
    try:
        context.load_verify_locations(cafile=ca.path)
    except (ssl.SSLError, ValueError):
        raise SettingsError(ca.line("contains no certificate in PEM")) from None


def _show(context: ssl.SSLContext, certificate: File, key: File, password: str | None) -> None:
    if b"-----BEGIN CERTIFICATE-----" not in _content(certificate):
        raise SettingsError(certificate.line("contains no certificate in PEM"))
    content = _content(key)
    if b"PRIVATE KEY-----" not in content:
        remedy = "; name the file with the key in REDIS_TLS_KEY_FILE" if key is certificate else ""
        raise SettingsError(key.line(f"contains no private key in PEM{remedy}"))
    encrypted = b"ENCRYPTED" in content
    if encrypted and password is None:
        raise SettingsError(
            key.line("is encrypted; decrypt the key, or set its password as the option ssl_password of REDIS_URL")
        )
    try:
        # A password is always given, because OpenSSL would otherwise ask for it on the terminal.
        context.load_cert_chain(certificate.path, key.path, password or "")
    except (ssl.SSLError, ValueError, OSError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            problem = f"contains a key that does not belong to the certificate in {certificate}"
        elif encrypted:
            problem = "is encrypted, and the option ssl_password of REDIS_URL is not its password"
        else:
            problem = "contains a key that cannot be used"
        raise SettingsError(key.line(problem)) from None


def _content(file: File) -> bytes:
    """The content of a regular file.

    Raises:
        SettingsError: the file cannot be read, or is not a regular file.
    """
    try:
        path = Path(file.path)
        if path.exists() and not path.is_file():
            raise SettingsError(file.line("is not a regular file"))
        return path.read_bytes()
    except ValueError:
        raise SettingsError(file.line("cannot be read: its path is malformed")) from None
    except OSError as error:
        raise SettingsError(file.line(f"cannot be read: {os.strerror(error.errno or 0)}")) from None


def _all_expired(context: ssl.SSLContext) -> bool:
    """Whether every CA of the context has expired."""
    now = datetime.now(UTC).timestamp()
    ends = [ssl.cert_time_to_seconds(str(each["notAfter"])) for each in context.get_ca_certs()]
    return bool(ends) and max(ends) < now
