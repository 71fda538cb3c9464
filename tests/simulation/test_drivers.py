"""The simulated sidecar behaves like the real sidecar: the same calls, answers and transitions at the same moments."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.protocol import Kind
from tests.simulation.driven import START, TIMINGS, Driven, Happening, SidecarNotes
from tests.simulation.real_driver import Real
from tests.simulation.redis_model import RedisModel
from tests.simulation.server import FROM_INSIDE
from tests.simulation.simulated_driver import Simulated
from tests.simulation.virtual_time import VirtualLoop

STEP, APART = 0.01, 0.00001
"""The grid of the event times, and the shift added for each event so that no two events coincide; in seconds."""
MOST = 30
"""Maximum number of moments in a schedule: small enough that the sum of the shifts stays below `DELAY`."""
CLOSE = 1e-3
"""Maximum difference, in seconds, between two times that count as the same moment."""


def changes_key(change: Callable[[RedisModel], None]) -> Happening:
    """Another party writes to the key, and the watch reports it."""

    def happens(driven: Driven) -> None:
        driven.server.set_clock(driven.now() - START)
        change(driven.server.model)
        driven.touched()

    return happens


def steps_down(driven: Driven) -> None:
    """An operator asks the holder to step down, and the watch misses the notice."""
    driven.server.set_clock(driven.now() - START)
    driven.server.model.step_down()


def fails(error: str) -> Happening:
    """Redis starts or stops answering every script with an error."""

    def happens(driven: Driven) -> None:
        driven.server.error = None if driven.server.error else error

    return happens


def goes_down(driven: Driven) -> None:
    """The server ends and closes the connection; or it starts again with all its data."""
    driven.server.up = not driven.server.up
    if not driven.server.up:
        driven.hang_up_server()


def cuts(driven: Driven) -> None:
    """The network is cut, or restored."""
    driven.cut = not driven.cut


def stops(seconds: float) -> Happening:
    """The server is stopped for this number of seconds."""

    def happens(driven: Driven) -> None:
        driven.server.thaw_at = driven.now() - START + seconds

    return happens


def asks(wait: float) -> Happening:
    """The client asks, and lets the sidecar hold the request for this number of seconds."""
    return lambda driven: driven.ask(wait)


HAPPENINGS: dict[str, Happening] = {
    **{f"asks, {wait} s": asks(wait) for wait in (0.0, 0.33, 1.17, 4.9, 9.7)},
    "hangs up": lambda driven: driven.hang_up(),
    "resigns": lambda driven: driven.resign(),
    "notices": lambda driven: driven.notice(),
    "notices a release, to relay": lambda driven: driven.relay_notice(),
    "b for 3 s": changes_key(lambda model: model.set("b", 3000)),
    "b for 20 s": changes_key(lambda model: model.set("b", 20_000)),
    "DISABLED": changes_key(lambda model: model.set("DISABLED", 4000)),
    "DEL": changes_key(RedisModel.delete),
    "step-down": steps_down,
    "step-down notice": lambda driven: driven.step_down_notice(),
    "PERSIST": changes_key(RedisModel.persist),
    "errors": fails("LOADING Redis is loading the dataset in memory"),
    "errors from inside": fails(FROM_INSIDE),
    "down": goes_down,
    "kills the connection": lambda driven: driven.hang_up_server(),
    "cut": cuts,
    "stops for 1 s": stops(1.003),
    "stops for 5 s": stops(5.007),
    "drains": lambda driven: driven.drain(),
}

MOMENTS = st.lists(
    st.tuples(
        st.integers(1, 400),
        st.sampled_from([name for name in HAPPENINGS for _ in range(1 + 2 * name.startswith("asks"))]),
    ),
    min_size=1,
    max_size=MOST,
)
"""The steps since the previous moment, and the event."""


def both(moments: list[tuple[int, str]], seed: int, *, follower: bool = False) -> tuple[SidecarNotes, SidecarNotes]:
    """The notes of the simulated and of the real sidecar."""
    schedule, steps = [], 100
    for number, (gap, name) in enumerate(moments):
        steps += gap
        schedule.append((steps * STEP + number * APART, HAPPENINGS[name]))
    end = steps * STEP + 2 * TIMINGS.ttl
    loop = VirtualLoop(START)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        real = runner.run(Real(seed, loop, follower=follower).run(schedule, end))
    return Simulated(seed, follower=follower).run(schedule, end), real


def compare(moments: list[tuple[int, str]], seed: int, *, follower: bool = False) -> SidecarNotes:
    """Run both sidecars with these events and compare their notes; returns the notes of the real sidecar."""
    simulated, real = both(moments, seed, follower=follower)
    assert simulated.calls == real.calls
    assert simulated.transitions == real.transitions
    assert simulated.answers == real.answers
    assert simulated.called_at == pytest.approx(real.called_at, abs=CLOSE)
    assert simulated.answered == pytest.approx(real.answered, abs=CLOSE)
    return real


RARE = {
    "an idle sidecar connects after pauses that double while Redis is unavailable": [
        *((100, "cut"), (150, "asks, 4.9 s"), (400, "hangs up"), (400, "asks, 9.7 s"), (400, "cut")),
    ],
    "a held request is answered at the end of the term during a call": [
        *((100, "asks, 0.0 s"), (100, "cut"), *[(240, "asks, 9.7 s")] * 12),
    ],
    "a held request is answered at the start of a drain during a call": [
        *((100, "asks, 0.0 s"), (100, "cut"), *[(240, "asks, 9.7 s")] * 3, (220, "drains")),
    ],
    "a closed connection is replaced, by the next call if that comes first": [
        *((100, "asks, 0.0 s"), (300, "kills the connection"), (5, "asks, 0.0 s"), (300, "kills the connection")),
        *((1, "resigns"), (400, "down"), (100, "kills the connection"), (900, "down"), (300, "asks, 0.0 s")),
    ],
    "a call that was certainly not executed is repeated once": [
        *((100, "errors"), (100, "asks, 0.0 s"), (200, "errors"), (200, "down"), (100, "asks, 4.9 s"), (300, "down")),
        *((300, "errors from inside"), (100, "asks, 4.9 s"), (400, "errors from inside"), (300, "asks, 0.0 s")),
    ],
    "a leader steps down at a notice, its client resigns, and the sidecar rests": [
        *((100, "asks, 0.0 s"), (50, "step-down"), (1, "step-down notice"), (20, "resigns"), (10, "asks, 9.7 s")),
        *((300, "notices"), (650, "asks, 9.7 s"), (700, "asks, 9.7 s")),
    ],
    "a leader steps down at a renewal, its client is silent, and another candidate leads": [
        *((100, "asks, 0.0 s"), (250, "asks, 4.9 s"), (250, "asks, 4.9 s"), (150, "step-down"), (700, "asks, 9.7 s")),
        *((10, "b for 3 s"), (600, "asks, 9.7 s"), (900, "asks, 9.7 s")),
    ],
    "the server ends during a call": [
        *((100, "asks, 0.0 s"), (99, "stops for 1 s"), (100, "resigns"), (10, "down"), (300, "down")),
        *((300, "asks, 0.0 s"), (300, "asks, 0.0 s")),
    ],
}
"""Sequences of events that random moments rarely contain."""


@pytest.mark.parametrize("moments", RARE.values(), ids=RARE)
def test_the_simulated_sidecar_behaves_like_the_real_sidecar_in_rare_sequences(moments: list[tuple[int, str]]) -> None:
    compare(moments, 0)


@pytest.mark.timeout(300)
@settings(max_examples=300, deadline=None, derandomize=True)
@given(moments=MOMENTS, seed=st.integers(0, 1000))
@example(  # the loop wakes when the demand of a held request ends, and then connects
    moments=[
        *((157, "errors"), (662, "hangs up"), (1204, "asks, 4.9 s"), (247, "asks, 0.0 s"), (337, "b for 3 s")),
        *((303, "asks, 1.17 s"), (331, "asks, 0.0 s"), (205, "asks, 9.7 s"), (85, "asks, 4.9 s")),
        *((1273, "asks, 0.0 s"), (198, "errors"), (433, "asks, 0.0 s"), (229, "cut"), (58, "b for 3 s")),
        *((637, "asks, 4.9 s"), (1478, "asks, 0.0 s"), (262, "asks, 9.7 s"), (1335, "asks, 4.9 s")),
    ],
    seed=621,
)
@example(  # the last answer of a draining sidecar
    moments=[(116, "asks, 1.17 s"), (31, "asks, 4.9 s"), (35, "drains"), (229, "asks, 4.9 s")], seed=0
)
@pytest.mark.slow
def test_the_simulated_sidecar_behaves_like_the_real_sidecar_in_random_sequences(
    moments: list[tuple[int, str]], seed: int
) -> None:
    compare(moments, seed)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(moments=MOMENTS, seed=st.integers(0, 1000))
def test_the_simulated_sidecar_behaves_like_the_real_sidecar_with_campaign_false(
    moments: list[tuple[int, str]], seed: int
) -> None:
    notes = compare(moments, seed, follower=True)
    assert {kind for kind, _, _ in notes.calls} <= {Kind.LOOK, Kind.RELAY}
    assert not any(leads for leads, _, _ in notes.transitions)
