"""Every address of a host name is tried, all within one time limit."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest

from runtime.connecting import connected_socket
from runtime.lookup import AddressInfo, Lookups

HOST = "redis.example"
LIMIT = 20.0


def at(port: int) -> AddressInfo:
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))


@contextmanager
def dropping() -> Iterator[AddressInfo]:
    """An address that drops packets: its connection queue is full, so the kernel answers no SYN."""
    with ExitStack() as opened, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = opened.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield at(listener.getsockname()[1])


@contextmanager
def refusing() -> Iterator[AddressInfo]:
    """An address without a listener."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield at(bound.getsockname()[1])


@contextmanager
def listening() -> Iterator[AddressInfo]:
    """An address that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield at(listener.getsockname()[1])


def known(*addresses: AddressInfo) -> Lookups:
    """Lookups in which every name has these addresses."""
    return Lookups(lambda host, port: addresses)


async def port_of(lookups: Lookups, *, limit: float = LIMIT, last: Sequence[object] = ()) -> int:
    with await connected_socket(lookups, HOST, 6379, limit=limit, last=last) as connected:
        assert not connected.getblocking()
        port: int = connected.getpeername()[1]
        return port


async def test_the_other_addresses_are_tried_if_one_drops_packets() -> None:
    with dropping() as first, dropping() as second, listening() as third:
        assert await port_of(known(first, second, third)) == third[4][1]


async def test_an_address_that_refuses_is_skipped() -> None:
    with refusing() as bad, listening() as good:
        assert await port_of(known(bad, good)) == good[4][1]


async def test_the_first_address_is_used_if_it_answers() -> None:
    with listening() as first, listening() as second:
        assert await port_of(known(first, second)) == first[4][1]
        assert await port_of(known(first, second), last=[first[4]]) == second[4][1], "the first address failed recently"
        assert await port_of(known(first), last=[first[4]]) == first[4][1], "this address is the only one"


async def test_connecting_ends_at_the_limit_if_every_address_drops_packets() -> None:
    with dropping() as first, dropping() as second, pytest.raises(TimeoutError):
        await port_of(known(first, second), limit=0.3)


async def test_many_addresses_are_all_tried_within_a_short_limit() -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(dropping()) for _ in range(8)]
        with listening() as good:
            assert await port_of(known(*silent, good), limit=1.0) == good[4][1]


async def test_a_refused_connection_is_reported_with_the_reason() -> None:
    with refusing() as bad, pytest.raises(ConnectionRefusedError):
        await port_of(known(bad))


async def test_an_unknown_name_is_reported() -> None:
    def unknown(host: str, port: int) -> Sequence[AddressInfo]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(socket.gaierror, match="not known"):
        await port_of(Lookups(unknown))
