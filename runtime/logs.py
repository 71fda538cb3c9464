"""Set-up of a process's log: one line per record on standard output, as JSON or text."""

import logging
import sys

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError

from runtime.log_lines import JsonLines, TextLines


def log_to_stdout(form: str, level: str) -> None:
    """Write all log records to standard output.

    Args:
        form: `json` or `text`.
        level: the name of a level of `logging`, in upper or lower case.
    """
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("aiohttp.server").addFilter(_is_not_about_malformed_http)


def _is_not_about_malformed_http(record: logging.LogRecord) -> bool:
    """Return false for malformed HTTP: the client got status 400, and anybody could fill the log with such requests."""
    return record.exc_info is None or not isinstance(record.exc_info[1], (HttpProcessingError, RequestPayloadError))
