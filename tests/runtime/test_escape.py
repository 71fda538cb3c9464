"""Any text from outside becomes one printable line of bounded length."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.escape import SHORT, cut, one_line

ANYTHING = st.text(st.characters(categories=None), max_size=400)  # lone surrogates included


@given(ANYTHING, st.integers(64, 500))
def test_the_result_is_one_printable_encodable_line_within_the_limit(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert line.isprintable()
    assert len(line) <= limit
    line.encode()


@given(ANYTHING, st.integers(64, 500))
def test_escaping_a_result_again_does_not_change_it(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert one_line(line, limit) == line


@given(st.text(st.characters(codec="utf-8"), max_size=SHORT).filter(str.isprintable))
def test_a_printable_text_is_not_changed(text: str) -> None:
    assert one_line(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\r\t", r"a\nb\r\t"),
        ("\x1b[2J\x07\x7f\x9b", r"\x1b[2J\x07\x7f\x9b"),
        ("\u2028\u2029\x85", r"\u2028\u2029\x85"),
        ("\u202eevil\u2066\u200b", r"\u202eevil\u2066\u200b"),
        ("\udc80", r"\udc80"),
        ("\U000e0001", r"\U000e0001"),
        (b"\xff\x1b", r"\xff\x1b"),
        ("größer, 日本", "größer, 日本"),
        (None, "None"),
    ],
)
def test_terminal_control_sequences_are_escaped(text: object, shown: str) -> None:
    assert one_line(text) == shown


def test_the_cut_characters_are_counted_and_no_escape_is_split() -> None:
    assert one_line("x" * 1_000_000) == "x" * 165 + "... (999835 more characters)"
    kept, _, count = one_line("\x1b" * 1_000_000).partition("... ")
    assert kept == r"\x1b" * 41
    assert count == "(999959 more characters)"
    assert one_line("\x1b" * 100).endswith(" more characters)"), "the text is short, but its escapes are long"


def test_a_text_for_json_is_cut_and_not_escaped() -> None:
    assert cut("\n" * 64, 64) == "\n" * 64
    assert cut("\n" * 1000, 64) == "\n" * 29 + "... (971 more characters)"
