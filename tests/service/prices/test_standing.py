"""The standing of symbols and the queue of unknown symbols: rules without I/O, on a clock that the test sets."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from service.prices.standing import (
    FIRST_REFUSAL,
    LONGEST_REFUSAL,
    NO_PRICE_PAUSE,
    SMALL_CROWD,
    Crowd,
    Refusal,
    Standing,
    Trials,
)

START = datetime(2026, 2, 13, 15, 30, tzinfo=UTC)


@dataclass
class World:
    """A standing and its clock."""

    time: datetime = START
    standing: Standing = field(init=False)

    def __post_init__(self) -> None:
        self.standing = Standing(lambda: self.time)

    def queued(self, symbols: Collection[str], *, silent: bool = False) -> set[str]:
        return set(everything(self.standing.trials(symbols, silent=silent)))


def batch(trials: Trials, most: int = 500) -> list[str]:
    return trials.next(most, 10_000, len)


def everything(trials: Trials) -> Iterable[str]:
    while some := batch(trials):
        yield from some


def names(first: str, count: int) -> list[str]:
    return [f"{first}{number:04}" for number in range(count)]


def test_a_symbol_counts_as_priced_from_its_first_price_until_a_refusal() -> None:
    world = World()
    world.standing.record_answer(["A", "B"], {"A"}, silent=True)
    assert world.standing.priced(["A", "B", "C"]) == ["A"]
    assert world.standing.record_refusal("A")
    assert world.standing.priced(["A"]) == []


def test_a_symbol_without_a_price_is_not_requested_again_for_minutes() -> None:
    world = World()
    world.standing.record_answer(["A"], (), silent=True)
    assert world.queued(["A", "B"]) == {"B"}
    assert world.queued(["A", "B"], silent=True) == {"A", "B"}
    world.time += NO_PRICE_PAUSE
    assert world.queued(["A", "B"]) == {"A", "B"}
    world.standing.record_answer(["A"], (), silent=False)
    assert world.queued(["A"]) == {"A"}, "a missing close says nothing about the latest price"


def test_a_refusal_expires_and_lasts_twice_as_long_each_time_up_to_a_day() -> None:
    world = World()
    lasted = []
    for _ in range(8):
        world.standing.record_refusal("A")
        before = world.time
        for _ in range(100):
            if world.queued(["A"], silent=True):
                break
            world.time += FIRST_REFUSAL / 2
        lasted.append(world.time - before)
    assert lasted[:3] == [FIRST_REFUSAL, 2 * FIRST_REFUSAL, 4 * FIRST_REFUSAL]
    assert lasted[-2:] == [LONGEST_REFUSAL, LONGEST_REFUSAL]
    world.standing.record_answer(["A"], {"A"}, silent=True)
    assert world.standing.priced(["A"]) == ["A"]


def test_a_refusal_dated_by_a_clock_ahead_lasts_at_most_a_day() -> None:
    world = World()
    ahead = START + timedelta(days=365)
    world.standing.remember([Refusal("A", 1, ahead, ahead + FIRST_REFUSAL)], ())
    assert world.queued(["A"]) == {"A"}


def test_refusals_and_prices_from_another_leader_are_used() -> None:
    world = World()
    world.standing.record_answer(["A", "B"], {"A", "B"}, silent=True)
    world.standing.remember([Refusal("A", 1, START, START + FIRST_REFUSAL)], ["C"])
    assert world.standing.priced(["A", "B", "C"]) == ["B", "C"]
    assert world.queued(["A"]) == set()
    world.standing.remember([], ["A"])
    assert world.standing.priced(["A"]) == ["A"]


def test_changes_are_returned_until_they_are_saved() -> None:
    world = World()
    world.standing.record_refusal("A")
    changes = world.standing.changes()
    world.standing.remember([], ["A"])
    assert world.standing.priced(["A"]) == [], "a refusal that is not in the database yet is kept"
    world.time += FIRST_REFUSAL
    world.standing.record_answer(["A"], {"A"}, silent=True)
    world.standing.saved(changes)
    assert world.standing.changes() == {"A": None}, "the entry has changed since"
    world.standing.saved(world.standing.changes())
    assert world.standing.changes() == {}


def test_a_portfolios_only_symbol_does_not_wait_for_anothers_thousands() -> None:
    world = World()
    many = names("A", 5_000)
    world.standing.set_crowds({symbol: Crowd(5_000, 1) for symbol in many} | {"Z": Crowd(1, 2)})
    trials = world.standing.trials([*many, "Z"], silent=False)
    assert batch(trials) == ["Z"], "Z has its own batch, which a refusal of other symbols does not affect"
    assert len(batch(trials)) == 500


def test_portfolios_with_few_symbols_share_a_batch() -> None:
    world = World()
    world.standing.set_crowds({symbol: Crowd(1, place) for place, symbol in enumerate(names("A", 300))})
    assert len(batch(world.standing.trials(names("A", 300), silent=False))) == 300


def test_the_rest_of_a_failed_batch_is_requested_last_and_in_halves() -> None:
    world = World()
    trials = world.standing.trials(names("A", 12), silent=False)
    first, second = batch(trials, 8), batch(trials, 8)
    assert (len(first), len(second)) == (8, 4)
    trials = world.standing.trials(names("A", 12), silent=False)
    first = batch(trials, 8)
    trials.put_back(first[1:])
    assert batch(trials, 8) == second, "symbols without a request yet come first"
    assert batch(trials, 8) == first[1:5]
    assert batch(trials, 8) == first[5:]


def test_a_failed_batch_is_halved_in_later_requests_until_one_symbol_remains() -> None:
    world = World()
    sizes = []
    for _ in range(5):
        some = batch(world.standing.trials(names("A", 16), silent=False), 16)
        sizes.append(len(some))
        world.standing.record_failure(some)
        world.time += timedelta(seconds=30)
        for other in set(names("A", 16)) - set(some):
            world.standing.record_refusal(other)
    assert sizes == [16, 8, 4, 2, 1]


def test_a_batch_does_not_mix_portfolios_with_and_without_refused_symbols() -> None:
    world = World()
    world.standing.set_crowds({"A": Crowd(SMALL_CROWD + 1, 1), "B": Crowd(2, 2), "C": Crowd(1, 3)})
    trials = world.standing.trials(["A", "B", "C"], silent=False)
    assert [batch(trials), batch(trials)] == [["B", "C"], ["A"]]


def test_a_symbol_that_failed_alone_is_not_requested_again_for_minutes() -> None:
    world = World()
    world.standing.record_failure(["A"])
    assert world.queued(["A", "B"]) == {"A", "B"}, "another symbol of the batch may have been at fault"
    world.standing.record_failure(["A"], alone=True)
    assert world.queued(["A", "B"]) == {"B"}


def test_a_symbol_that_was_refused_before_is_requested_alone_and_last() -> None:
    world = World()
    world.standing.remember([Refusal("A", 3, START - timedelta(days=2), START - timedelta(days=1))], ())
    trials = world.standing.trials(["A", "B", "C"], silent=False)
    assert [batch(trials), batch(trials)] == [["B", "C"], ["A"]]


def test_a_batch_fits_into_a_url() -> None:
    trials = World().standing.trials(names("A" * 16, 100), silent=False)
    assert len(trials.next(500, 200, len)) == 10
    assert len(trials.next(500, 3, len)) == 1, "at least one symbol"


def test_failed_trials_are_forgotten_after_a_day() -> None:
    world = World()
    world.standing.record_failure(["A", "B"])
    world.time += timedelta(days=1)
    world.standing.remember([], ())
    assert len(batch(world.standing.trials(["A", "B"], silent=False), 2)) == 2
