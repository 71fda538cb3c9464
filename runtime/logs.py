"""Set-up of a process's log: one line per record on standard output, as JSON or text."""

import logging
import sys

from aiohttp import ClientConnectionResetError
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError

from runtime.log_lines import JsonLines, TextLines
from runtime.log_output import LogOutput

_CAUSED_BY_A_CLIENT = HttpProcessingError, RequestPayloadError, ClientConnectionResetError


def log_to_stdout(form: str, level: str) -> None:
    """Write all log records to standard output.

    Args:
        form: `json` or `text`.
        level: the name of a level of `logging`, in upper or lower case.
    """
    handler = LogOutput(sys.stdout, "standard output")
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("aiohttp.server").addFilter(_is_not_caused_by_a_client)


def _is_not_caused_by_a_client(record: logging.LogRecord) -> bool:
    """Return false for malformed HTTP, and for a client that has gone before its answer.

    Anybody could fill the log with such requests. A client that sends malformed HTTP gets the status 400.
    """
    return record.exc_info is None or not isinstance(record.exc_info[1], _CAUSED_BY_A_CLIENT)
