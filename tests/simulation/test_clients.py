"""The simulated client behaves like the real client: it asks, believes, stops and resigns at the same moments."""

from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.simulation.client_driven import TTL, Driven, Happening, Notes
from tests.simulation.driven import ME
from tests.simulation.real_client import Real
from tests.simulation.redis_model import RedisModel
from tests.simulation.simulated_client import Simulated

STEP, APART = 0.01, 0.00001
"""The grid of the event times, and the shift added for each event so that no two events coincide; in seconds."""
CLOSE = 2e-3
"""Maximum difference, in seconds, between two times that count as the same moment."""


def client_stops(seconds: float) -> Happening:
    """The client is frozen for this number of seconds."""

    def happens(driven: Driven) -> None:
        driven.freeze()
        driven.world.at(driven.world.now + seconds, lambda _: driven.thaw())

    return happens


def sidecar_stops(seconds: float) -> Happening:
    """The sidecar is frozen for this number of seconds."""

    def happens(driven: Driven) -> None:
        sidecar = driven.world.sidecar
        if sidecar.alive and not sidecar.frozen:
            sidecar.freeze()
            boot = sidecar.boot
            driven.world.at(driven.world.now + seconds, lambda _: sidecar.thaw() if sidecar.boot == boot else None)

    return happens


def sidecar_starts(driven: Driven) -> None:
    if not driven.world.sidecar.alive:
        driven.world.sidecar.start(ME)


def changes_key(change: Callable[[RedisModel], None]) -> Happening:
    """Another party writes to the key, and the watch reports it."""

    def happens(driven: Driven) -> None:
        world = driven.world
        world.primary.set_clock(world.now)
        change(world.primary.model)
        world.changed(world.primary, released=False)

    return happens


def cuts(driven: Driven) -> None:
    """The network to Redis is cut, or restored."""
    driven.world.sidecar.cut = not driven.world.sidecar.cut


def errs(driven: Driven) -> None:
    """Redis starts or stops answering every script with an error."""
    server = driven.world.primary
    server.error = None if server.error else "READONLY"


HAPPENINGS: dict[str, Happening] = {
    "looks": lambda driven: driven.look(),
    "client starts": lambda driven: driven.start(),
    "client crashes": lambda driven: driven.kill(),
    "client leaves": lambda driven: driven.leave(),
    "client starts over": lambda driven: driven.start_over(),
    **{f"client stops for {seconds:.1f} s": client_stops(seconds) for seconds in (0.2003, 1.5007, 4.9003, 12.0011)},
    "sidecar starts": sidecar_starts,
    "sidecar crashes": lambda driven: driven.world.sidecar.kill(),
    "sidecar drains": lambda driven: driven.world.sidecar.drain(),
    **{f"sidecar stops for {seconds:.1f} s": sidecar_stops(seconds) for seconds in (0.3007, 1.7003, 4.5011, 11.0003)},
    "b for 3 s": changes_key(lambda model: model.set("b", 3000)),
    "DISABLED": changes_key(lambda model: model.set("DISABLED", 4000)),
    "DEL": changes_key(RedisModel.delete),
    "cut": cuts,
    "errors": errs,
}

MOMENTS = st.lists(
    st.tuples(st.integers(1, 400) | st.integers(1, 30), st.sampled_from(list(HAPPENINGS))), min_size=1, max_size=30
)
"""The steps since the previous moment, and the event."""


def both(moments: list[tuple[int, str]], share: float, grant_ttl: float) -> tuple[Notes, Notes]:
    """The notes of the simulated and of the real client."""
    history, steps = [], 100
    for number, (gap, name) in enumerate(moments):
        steps += gap
        history.append((steps * STEP + number * APART, HAPPENINGS[name]))
    end = steps * STEP + TTL
    history += [(end - before, HAPPENINGS["looks"]) for before in (29.001, 21.003, 13.007, 0.005)]
    return Simulated(share, grant_ttl).run(history, end), Real(share, grant_ttl).run(history, end)


@pytest.mark.slow
@pytest.mark.timeout(300)
@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    moments=MOMENTS,
    share=st.sampled_from([0.1, 0.3, 0.45, 0.6, 0.8, 0.9]),
    grant_ttl=st.sampled_from([5.0, 5.0, 1.0, 2.0, 12.0]),
)
@example(  # a client that thaws long after its term sends no `/is-leader` request before its resign
    moments=[(24, "sidecar crashes"), (28, "client stops for 12.0 s"), (804, "sidecar starts")],
    share=0.6,
    grant_ttl=5.0,
)
@example(  # a client that leaves while its resign is not answered sends no second resign
    moments=[(1071, "sidecar stops for 4.5 s"), (333, "client leaves")], share=0.1, grant_ttl=5.0
)
@example(  # an answer that the client reads after the time limit does not count
    moments=[(1820, "client stops for 12.0 s")], share=0.6, grant_ttl=12.0
)
@example(  # a short grant that is no longer extended
    moments=[(1153, "cut")], share=0.3, grant_ttl=12.0
)
def test_the_simulated_client_behaves_like_the_real_client(
    moments: list[tuple[int, str]], share: float, grant_ttl: float
) -> None:
    simulated, real = both(moments, share, grant_ttl)
    assert simulated.what == real.what
    for mine, theirs in zip(simulated.when, real.when, strict=True):
        # The simulated client skips requests that change nothing. Near the end of a grant each wait is shorter than
        # the previous wait. At the event `looks`, one client may then be one request ahead of the other client.
        question = mine[2:], theirs[2:]
        assert mine[:2] == pytest.approx(theirs[:2], abs=CLOSE)
        assert question[0] == pytest.approx(question[1], abs=max([CLOSE, *question[1][1:]]))
