"""Text from outside cannot forge a log line, in either format, tracebacks included."""

import io
import json
import logging
import re
from collections.abc import Callable

import pytest

from runtime.log_lines import MESSAGE, TRACEBACK_LINES, TRACEBACK_WIDTH, JsonLines, TextLines

HOSTILE = "a\n2026-01-01T00:00:00.000Z ERROR forged\x1b[2J\u2028\u202e\x85\udc80"
TIME = re.compile(r"20\d\d-\d\d-\d\dT")


@pytest.fixture(params=[TextLines, JsonLines])
def form(request: pytest.FixtureRequest) -> Callable[[], logging.Formatter]:
    made: Callable[[], logging.Formatter] = request.param
    return made


def logged(formatter: logging.Formatter, text: str) -> str:
    """The log output for the text as an argument, as a field, in an error, and in the cause of an error."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    log = logging.Logger("outside")  # noqa: LOG001 - this test needs its own logger
    log.addHandler(handler)
    log.warning("received %s", text, extra={"holder": text}, stack_info=True)
    try:
        try:
            raise KeyError(text)
        except KeyError as error:
            error.add_note(text)
            raise ValueError(text) from error
    except ValueError:
        log.exception("failed")
    return stream.getvalue()


def test_a_text_log_contains_no_control_character_and_no_forged_line() -> None:
    lines = logged(TextLines(), HOSTILE).removesuffix("\n").split("\n")
    assert all(line.isprintable() for line in lines)
    assert len([line for line in lines if TIME.match(line)]) == 2
    assert all(line.startswith("  ") for line in lines if not TIME.match(line))
    assert any("ValueError: a" in line for line in lines)


def test_a_json_log_contains_one_object_per_line_with_the_text() -> None:
    first, second = (json.loads(line) for line in logged(JsonLines(), HOSTILE).splitlines())
    assert (first["message"], first["holder"]) == (f"received {HOSTILE}", HOSTILE)
    assert "ValueError: a" in second["exc_info"]


def test_a_very_long_log_text_is_cut_and_the_end_of_a_traceback_is_kept(form: Callable[[], logging.Formatter]) -> None:
    for text in ("x" * 10_000_000, "x\n" * 1_000_000, "\x1b" * 1_000_000):
        log = logged(form(), text)
        assert len(log) < 20 * MESSAGE + 4 * TRACEBACK_LINES * TRACEBACK_WIDTH
        assert "more characters)" in log
    traceback = logged(form(), "x\n" * 500 + "the end").rpartition("Traceback")[2]
    assert "more lines)" in traceback
    assert "the end" in traceback
