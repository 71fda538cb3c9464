"""The pauses before the wrapper runs COMMAND again."""

from sidecar.wrapper.pauses import Pauses


def test_pauses_grow_from_one_second_to_thirty() -> None:
    pauses = Pauses()
    assert [pauses.after(0.1) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_pauses_start_over_after_a_minute_of_work_and_not_before() -> None:
    pauses = Pauses()
    assert [pauses.after(worked) for worked in (0, 0, 59.9, 60, 0)] == [1, 2, 4, 1, 2]
