"""The two formats of a log line, JSON and text. In both formats, text from outside cannot forge a line."""

import logging
import time
from types import TracebackType
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from runtime.escape import cut, one_line

MESSAGE = 4_000
"""Limit of a message and of each field, in characters."""
TRACEBACK_LINES, TRACEBACK_WIDTH = 200, 500
"""Limits of a traceback: its number of lines, half from its start and half from its end, and the length of a line."""

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"asctime", "color_message", "message", "taskName"}

ErrorInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class _UtcTimes(logging.Formatter):
    """Times in UTC, as ISO 8601 with milliseconds."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"


class JsonLines(_UtcTimes, JsonFormatter):
    """One JSON object per line: time, level, logger, message, and the caller's fields. Long texts are cut."""

    def __init__(self) -> None:
        names = {"asctime": "time", "levelname": "level", "name": "logger"}
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields=names)

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Cut each text of the object, except the traceback, which is already cut."""
        return {
            name: cut(value, MESSAGE) if isinstance(value, str) and name != "exc_info" else value
            for name, value in log_data.items()
        }

    def formatException(self, ei: ErrorInfo) -> str:  # noqa: N802 - a name of logging
        """The traceback; the middle of a long traceback is left out."""
        return "\n".join(cut(line, TRACEBACK_WIDTH) for line in _shortened(str(super().formatException(ei))))


class TextLines(_UtcTimes):
    """One line for people: time, level, message, then the caller's fields as name=value.

    A traceback follows on indented lines. No log line begins with a space, so a line break in an error's text cannot
    forge a log line.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - a name of logging
        """The line without the traceback."""
        fields = {name: value for name, value in vars(record).items() if name not in _PLAIN and value is not None}
        line = one_line(super().formatMessage(record), MESSAGE)
        return " ".join([line, *(f"{name}={one_line(value, MESSAGE)}" for name, value in fields.items())])

    def formatException(self, ei: ErrorInfo) -> str:  # noqa: N802 - a name of logging
        """The traceback, indented."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - a name of logging
        """The stack, indented."""
        return _indented(stack_info)


def _indented(text: str) -> str:
    return "\n".join(f"  {one_line(line, TRACEBACK_WIDTH)}" for line in _shortened(text))


def _shortened(text: str) -> list[str]:
    lines = text.splitlines()
    left_out = len(lines) - TRACEBACK_LINES
    half = TRACEBACK_LINES // 2
    return lines if left_out <= 0 else [*lines[:half], f"... ({left_out} more lines)", *lines[-half:]]
