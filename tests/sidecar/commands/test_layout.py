"""Tables and lines of the commands: never wider than the limit, and complete if they fit."""

import random

import pytest

from sidecar.commands.layout import COLUMNS, NARROWEST, Layout, width

ALPHABET = "ab …é語\u0301🙂-"
DRAWS = random.Random(16)


def words(limit: int) -> str:
    return "".join(DRAWS.choice(ALPHABET) for _ in range(DRAWS.randrange(limit)))


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
@pytest.mark.slow
def test_no_line_of_a_table_is_wider_than_the_limit(encoding: str) -> None:
    for _ in range(500):
        layout = Layout(DRAWS.randrange(NARROWEST, 100), encoding)
        rows = [[words(150) for _ in range(4)] for _ in range(3)]
        lines = [*layout.table(rows), *layout.wrapped(words(400)), layout.cut(words(200))]
        assert max(map(width, lines)) <= layout.columns
        for line in lines:
            line.encode(encoding)


def test_a_table_that_fits_is_complete_and_its_columns_are_aligned() -> None:
    rows = [("lease", "holder", "left", "token"), ("background_services", "0" * 32, "86400.0", "1795881763474937")]
    head, line = Layout(COLUMNS).table(rows)
    assert line.split() == list(rows[1])
    assert (len(line), head.index("holder")) == (COLUMNS, line.index("0"))


def test_the_widest_columns_are_cut_first_and_the_cut_is_marked() -> None:
    rows = [("lease", "holder", "left"), ("a" * 64, "b" * 128, "12.0")]
    (lease, holder, left) = Layout(COLUMNS).table(rows)[1].split()
    assert (lease[-1], holder[-1], left) == ("…", "…", "12.0")
    assert abs(len(lease) - len(holder)) <= 1
    assert Layout(COLUMNS, "ascii").table(rows)[1].split()[0].endswith("...")


def test_a_wide_character_counts_as_two_columns_and_a_combining_accent_as_none() -> None:
    assert [width(text) for text in ("a", "語", "e\u0301", "🙂")] == [1, 2, 1, 2]
    lines = Layout(40).table([("語" * 3, "x"), ("abc", "y")])
    assert [width(line) for line in lines] == [9, 9]


def test_a_long_line_wraps_between_words_and_loses_no_word() -> None:
    text = "one lease: " + "word " * 60 + "x" * 100
    lines = Layout(40).wrapped(text)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(line.startswith("  ") for line in lines[1:])
    assert "word" in lines[0].split()[-1]
