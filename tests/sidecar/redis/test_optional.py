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

    def leaves_out(self, command: str = "INFO") -> bool:
        """Whether a new connection leaves the command out."""
        return self.new().refusal(command) is not None


def refuse(optional: OptionalCommands, error: Exception = UNKNOWN, command: str = "INFO") -> None:
    with suppress(ResponseError), optional.reading(command):
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


@pytest.mark.parametrize("command", ["INFO", "CLIENT ID", "CLUSTER SLOTS"])
@pytest.mark.parametrize(
    "text",
    [
        "DENIED this server is protected",
        "no upstream host",
        "max number of clients + cluster connections reached",
        "the cluster is full; a client must wait",
    ],
)
def test_an_error_about_the_whole_server_is_no_refusal_of_the_command(
    connections: Connections, text: str, command: str
) -> None:
    first = connections.new()
    refuse(first, ResponseError(text), command)
    first.ended()
    assert not connections.leaves_out(command)


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("CLIENT ID", "unknown command `CLIENT`, with args beginning with: `ID`, "),
        ("CLIENT TRACKING", "Command is not available: 'CLIENT TRACKING'"),
        ("CLIENT TRACKING", "unsupported command 'client'"),
        ("CLUSTER SLOTS", "Unknown subcommand or wrong number of arguments for 'slots'. Try CLUSTER HELP."),
        ("CLUSTER SLOTS", "unknown subcommand 'SLOTS'"),
        ("SUBSCRIBE portfolio:a:changed", "'subscribe' is not supported"),
        ("INFO", "INFO is disabled"),
    ],
)
def test_an_error_that_names_the_command_or_calls_it_unknown_is_a_refusal(
    connections: Connections, command: str, text: str
) -> None:
    first = connections.new()
    refuse(first, ResponseError(text), command)
    first.ended()
    assert connections.leaves_out(command)


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
