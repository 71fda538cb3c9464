"""How the terms of a lease are read from the entries of its history."""

import pytest

from sidecar.history import LONGEST, MOST_TERMS, End, Entry, Event, entry_of, terms_of

NOON = 1_795_867_200_123
"""2026-11-28T12:00:00.123Z in milliseconds."""


def acquire(at: int, token: int, holder: str = "a") -> Entry:
    return Entry(NOON + at, Event.ACQUIRE, token, holder)


def release(at: int, token: int, reason: str = "resigned", holder: str = "a") -> Entry:
    return Entry(NOON + at, Event.RELEASE, token, holder, reason)


def ends(entries: list[Entry], holder: str | None = None, token: int | None = None) -> list[tuple[int, str]]:
    """Token and end of the terms in these entries, newest first."""
    return [(term.token, str(term.end)) for term in terms_of(reversed(entries), holder, token)]


def test_a_term_has_the_times_of_redis_and_its_release_reason() -> None:
    [term] = terms_of([release(4000, 7, "step-down"), acquire(0, 7)], None, 7)
    assert term.as_json() == {
        "token": 7,
        "holder": "a",
        "acquired_at": "2026-11-28T12:00:00.123Z",
        "released_at": "2026-11-28T12:00:04.123Z",
        "end": "released",
        "reason": "step-down",
    }


def test_a_release_without_a_reason_still_counts_as_a_release() -> None:
    [term] = terms_of([release(1, 7, ""), acquire(0, 7)], None, 7)
    assert (term.end, term.reason) == (End.RELEASED, None)


def test_a_term_that_ended_by_crash_delete_or_expiry_is_shown_as_not_released() -> None:
    entries = [acquire(0, 1), acquire(40_000, 2, "b"), release(50_000, 2, holder="b"), acquire(60_000, 3)]
    assert ends(entries, None, 3) == [(3, "not released"), (2, "released"), (1, "not released")]
    [crashed, *_] = terms_of(reversed(entries), None, 3)
    assert (crashed.released_at, crashed.reason) == (None, None)


@pytest.mark.parametrize(
    ("holder", "token", "end"),
    [
        ("a", 2, "holding"),
        ("b", 2, "not released"),
        ("a", 3, "not released"),
        ("DISABLED", 2, "not released"),
        (None, 2, "not released"),
        ("a", None, "not released"),
    ],
)
def test_the_last_term_is_shown_as_current_while_key_and_fence_agree(
    holder: str | None, token: int | None, end: str
) -> None:
    assert ends([acquire(0, 1), acquire(1, 2)], holder, token)[0] == (2, end)


def test_only_the_last_term_can_be_current() -> None:
    assert ends([acquire(0, 1), acquire(1, 2)], "a", 1) == [(2, "not released"), (1, "not released")]


def test_a_released_term_is_not_current_even_if_the_key_is_back() -> None:
    assert ends([acquire(0, 1), release(1, 1)], "a", 1) == [(1, "released")]


def test_a_release_without_an_acquire_is_left_out() -> None:
    """The acquire was trimmed, or an older version of the sidecar acquired the lease."""
    assert ends([release(0, 1), acquire(1, 2), release(2, 2)]) == [(2, "released")]


def test_a_term_recorded_twice_is_one_term_that_began_with_the_first_entry() -> None:
    terms = terms_of([acquire(9, 2), acquire(5, 2), acquire(0, 1)], "a", 2)
    assert [(term.token, term.end, term.acquired_at.microsecond) for term in terms] == [
        (2, "holding", 128_000),
        (1, "not released", 123_000),
    ]


def test_at_most_a_hundred_terms_are_returned() -> None:
    entries = [each for token in range(1, 301) for each in (acquire(2 * token, token), release(2 * token + 1, token))]
    terms = terms_of(reversed(entries), None, None)
    assert [term.token for term in terms] == list(range(300, 300 - MOST_TERMS, -1))
    assert {term.end for term in terms} == {"released"}


@pytest.mark.parametrize(
    "texts",
    [
        ("1795867200123", "acquire", "7", "a", ""),
        ("x-0", "acquire", "7", "a", ""),
        ("999999999999999-0", "acquire", "7", "a", ""),
        ("1795867200123-0", "adopt", "7", "a", ""),
        ("1795867200123-0", "", "7", "a", ""),
        ("1795867200123-0", "acquire", "-7", "a", ""),
        ("1795867200123-0", "acquire", "\u0667", "a", ""),
        ("1795867200123-0", "acquire", "12345678901234567", "a", ""),
        ("1795867200123-0", "release", "7", "", "drain"),
    ],
)
def test_an_entry_that_no_script_wrote_is_ignored(texts: tuple[str, str, str, str, str]) -> None:
    assert entry_of(*texts) is None


def test_the_length_of_a_reason_is_bounded() -> None:
    entry = entry_of(f"{NOON}-0", "release", "7", "a", "x" * 1000)
    assert entry == release(0, 7, "x" * LONGEST)
