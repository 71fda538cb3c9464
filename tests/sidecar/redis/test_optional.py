"""Which refusals make later connections leave an optional command out."""

from contextlib import suppress

import pytest
from redis.exceptions import NoPermissionError, ResponseError

from sidecar.redis.optional import AT_ONCE, LEFT_OUT, EndingRefusals, OptionalCommands

UNKNOWN = ResponseError("unknown command 'info', with args beginning with: 'memory'")


class Connections:
    """The connections of one process, with a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self._known = EndingRefusals(lambda: self.now)

    def new(self) -> OptionalCommands:
        return OptionalCommands(self._known)

    def leaves_out(self) -> bool:
        """Whether a new connection leaves INFO out."""
        return self.new().refusal("INFO") is not None


def refuse(optional: OptionalCommands, error: Exception = UNKNOWN) -> None:
    with suppress(ResponseError), optional.reading("INFO"):
        raise error


@pytest.fixture
def connections() -> Connections:
    return Connections()


@pytest.mark.parametrize("error", [UNKNOWN, NoPermissionError("User x has no permissions to access a channel")])
def test_a_command_whose_refusal_ends_the_connection_is_left_out_for_a_time(
    connections: Connections, error: Exception
) -> None:
    first, second = connections.new(), connections.new()
    refuse(first, error)
    assert not connections.leaves_out(), "the connection has not ended"
    first.ended()
    assert first.ended_connection
    assert connections.leaves_out()
    assert second.refusal("INFO") is None, "an open connection does not change"
    connections.now = LEFT_OUT - 1
    assert connections.leaves_out()
    later = connections.new()
    connections.now = LEFT_OUT + 1
    assert not connections.leaves_out()
    assert later.refusal("INFO"), "an attempt to send the command again would end an open connection"


def test_the_end_may_be_noticed_before_the_refusal_is_read(connections: Connections) -> None:
    first = connections.new()
    first.ended()
    connections.now = 10 * AT_ONCE
    refuse(first)
    assert connections.leaves_out()


@pytest.mark.parametrize("error", [ResponseError("DENIED this server is protected"), ResponseError("no upstream host")])
def test_an_error_about_the_whole_server_is_no_refusal_of_the_command(
    connections: Connections, error: Exception
) -> None:
    first = connections.new()
    refuse(first, error)
    first.ended()
    assert not connections.leaves_out()


def test_an_end_without_a_refusal_before_it_leaves_nothing_out(connections: Connections) -> None:
    first = connections.new()
    first.ended()
    assert not connections.leaves_out()
    answered = connections.new()
    refuse(answered)
    with answered.reading("CLIENT ID"):
        pass
    answered.ended()
    assert not connections.leaves_out()


def test_an_end_some_time_after_a_refusal_leaves_nothing_out(connections: Connections) -> None:
    first = connections.new()
    refuse(first)
    connections.now = 2 * AT_ONCE
    first.ended()
    assert not connections.leaves_out()


def test_a_connection_that_the_sidecar_aborts_leaves_nothing_out(connections: Connections) -> None:
    first = connections.new()
    refuse(first)
    first.aborted()
    first.ended()
    assert not connections.leaves_out()
