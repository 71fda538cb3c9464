"""Pauses between attempts."""

from runtime.backoff import Backoff


def test_pauses_double_up_to_the_maximum_and_start_over_after_a_reset() -> None:
    backoff = Backoff(1.0, 5.0, uniform=lambda _, most: most)
    assert [backoff.next() for _ in range(5)] == [1, 2, 4, 5, 5]
    backoff.reset()
    assert [backoff.next() for _ in range(2)] == [1, 2]


def test_a_pause_is_shortened_randomly_but_not_below_its_minimum_share() -> None:
    backoff = Backoff(1.0, 5.0, least=0.25, uniform=lambda least, _: least)
    assert [backoff.next() for _ in range(3)] == [0.25, 0.5, 1]
    assert all(0.5 <= Backoff(1.0, 5.0).next() <= 1 for _ in range(100))


def test_a_larger_maximum_factor_makes_the_pauses_longer() -> None:
    backoff = Backoff(1.0, 5.0, most=1.5, uniform=lambda _, most: most)
    assert [backoff.next() for _ in range(4)] == [1.5, 3, 6, 7.5]


def test_the_first_pause_is_no_longer_than_the_maximum() -> None:
    backoff = Backoff(3.0, 1.0, uniform=lambda _, most: most)
    assert [backoff.next() for _ in range(2)] == [1, 1]
    backoff.reset()
    assert backoff.next() == 1
