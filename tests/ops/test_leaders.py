"""The board of leaders of `make run`: the text and the time of each report."""

from typing import Any

import pytest

from ops.local.leaders import FIRST_PATIENCE, PATIENCE, Board

Reports = list[str]


@pytest.fixture
def reports() -> Reports:
    return []


@pytest.fixture
def board(reports: Reports) -> Board:
    return Board(lambda lease, text, new: reports.append(f"{lease}: {text}"))


def leads(token: int) -> dict[str, Any]:
    return {"is_leader": True, "token": token, "state": "leading"}


def follows(state: str = "following") -> dict[str, Any]:
    return {"is_leader": False, "token": None, "state": state}


def test_the_first_leader_is_reported_once(board: Board, reports: Reports) -> None:
    for now in (0.0, 0.5, 1.0):
        board.seen("task1", "a", leads(7), now)
    assert reports == ["a: task1 leads (token 7)"]
    assert board.leaders == {"a": "task1"}


def test_a_new_leader_is_reported_with_the_time_without_one(board: Board, reports: Reports) -> None:
    board.seen("task1", "a", leads(7), 0.0)
    board.seen("task1", "a", follows(), 10.0)
    board.seen("task2", "a", leads(8), 13.25)
    board.seen("task2", "a", follows(), 20.0)
    board.seen("task1", "a", leads(9), 20.004)
    assert reports[1:] == [
        "a: task2 leads (token 8), after 3.25 s without a leader",
        "a: task1 leads (token 9), within 10 ms",
    ]


def test_a_leader_whose_container_has_exited_no_longer_leads(board: Board, reports: Reports) -> None:
    board.seen("task1", "a", leads(7), 0.0)
    board.gone("task1", 5.0)
    assert board.leaders == {"a": None}
    board.seen("task2", "a", leads(8), 9.0)
    assert reports[-1] == "a: task2 leads (token 8), after 4.00 s without a leader"


def test_an_old_leader_s_late_report_changes_nothing(board: Board, reports: Reports) -> None:
    board.seen("task1", "a", leads(7), 0.0)
    board.seen("task2", "a", leads(8), 1.0)
    board.seen("task1", "a", leads(7), 1.1)
    board.seen("task1", "a", follows(), 1.2)
    assert board.leaders == {"a": "task2"}
    assert reports[1:] == ["a: task2 leads (token 8); task1 led until now"]


def test_a_re_adopted_term_is_reported_as_the_same_term(board: Board, reports: Reports) -> None:
    board.seen("task1", "a", leads(7), 0.0)
    board.gone("task1", 1.0)
    board.seen("task1", "a", leads(7), 3.5)
    assert reports[-1] == "a: task1 leads again, in the same term (token 7), 2.50 s later"


def test_a_holder_outside_the_run_is_reported_by_its_name(board: Board, reports: Reports) -> None:
    board.seen("task1", "a", follows() | {"holder": "another"}, 0.0)
    board.tick(FIRST_PATIENCE)
    assert reports == ["a: no task of this run leads: another holds the key"]


def test_a_holder_outside_the_run_is_reported_with_the_trouble_of_its_key(board: Board, reports: Reports) -> None:
    board.seen("task1", "a", follows() | {"holder": "another", "trouble": "the key has no TTL"}, 0.0)
    board.tick(FIRST_PATIENCE)
    assert reports == ["a: no task of this run leads: another holds the key; the key has no TTL"]


def test_a_key_that_outlives_its_holder_is_reported(board: Board, reports: Reports) -> None:
    board.seen("task1", "a", leads(7) | {"holder": "one"}, 0.0)
    board.gone("task1", 1.0)
    board.seen("task2", "a", follows() | {"holder": "one"}, 1.0)
    board.tick(2.0 + PATIENCE)
    assert reports[1:] == ["a: nobody leads: the holder has ended, and its key has not expired yet"]


@pytest.mark.parametrize(
    ("state", "reason"), [("disabled", "an operator"), ("guarded", "guard"), ("disconnected", "Redis")]
)
def test_a_missing_leader_is_reported_once_with_the_reason(
    board: Board, reports: Reports, state: str, reason: str
) -> None:
    board.seen("task1", "a", leads(7), 0.0)
    board.seen("task1", "a", follows(state), 1.0)
    board.tick(1.0 + PATIENCE / 2)
    assert len(reports) == 1
    board.tick(2.0 + PATIENCE)
    board.tick(9.0)
    assert len(reports) == 2
    assert reports[1].startswith("a: nobody leads: ")
    assert reason in reports[1]


@pytest.mark.parametrize(
    ("state", "trouble", "expected"),
    [
        ("disconnected", "readonly: a replica", "nobody leads: Redis cannot be used; readonly: a replica"),
        ("disconnected", None, "nobody leads: Redis cannot be used"),
        (
            "guarded",
            "a trouble",
            "nobody leads: the failover guard waits for one LEASE_TTL, since Redis has restarted; a trouble",
        ),
        ("following", "the key is not a string", "nobody leads: the key is not a string"),
    ],
)
def test_the_report_of_a_missing_leader_contains_the_sidecar_s_trouble(
    board: Board, reports: Reports, state: str, trouble: str | None, expected: str
) -> None:
    board.seen("task1", "a", follows(state) | {"trouble": trouble}, 0.0)
    board.seen("task2", "a", follows(state) | {"trouble": None}, 0.0)
    board.tick(FIRST_PATIENCE)
    assert reports == [f"a: {expected}"]


def test_a_missing_leader_is_not_reported_before_the_first_election(board: Board, reports: Reports) -> None:
    board.seen("task1", "a", follows("waiting"), 0.0)
    board.tick(FIRST_PATIENCE - 0.1)
    assert reports == []
    board.tick(FIRST_PATIENCE)
    assert reports == ["a: nobody leads: no API asks for it"]
