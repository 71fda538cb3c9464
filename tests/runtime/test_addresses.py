"""Addresses of listeners, and loopback addresses."""

import pytest

from runtime.addresses import Address, is_loopback


@pytest.mark.parametrize(
    ("bind", "reachable"),
    [("0.0.0.0:1", "127.0.0.1"), ("127.0.0.7:1", "127.0.0.7"), ("[::]:1", "::1"), ("[::1]:1", "::1")],
)
def test_an_unspecified_address_is_reached_over_loopback(bind: str, reachable: str) -> None:
    address = Address.parse(bind)
    assert address.reachable == reachable
    assert str(address) == bind


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("8080", "is not ADDRESS:PORT"),
        ("localhost:8080", "'localhost' is not an IP address"),
        (":8080", "'' is not an IP address"),
        ("127.0.0.1:", "'' is not a port"),
        ("127.0.0.1:0", "'0' is not a port"),
        ("127.0.0.1:65536", "'65536' is not a port"),
        ("127.0.0.1:८०", "is not a port"),
        ("127.0.0.1:" + "1" * 5000, "is not a port"),
    ],
)
def test_an_invalid_address_is_refused_with_a_short_error(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as raised:
        Address.parse(text)
    assert len(str(raised.value)) < 100


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.1", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_only_numeric_loopback_addresses_are_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
