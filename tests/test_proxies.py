"""Whose request it is, by what proxies say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_api.proxies import UNIX, TrustedProxies

TRUSTED = TrustedProxies.parse(["10.0.0.0/8", "192.0.2.1", "2001:db8:1::/48"])
WITH_UNIX = TrustedProxies.parse([UNIX, "10.0.0.0/8"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        # Nobody says anything, or nobody who is trusted.
        ("198.51.100.7", "", "198.51.100.7"),
        ("198.51.100.7", "203.0.113.5", "198.51.100.7"),
        ("192.0.2.2", "203.0.113.5", "192.0.2.2"),
        (UNIX, "203.0.113.5", UNIX),
        # One proxy, and more.
        ("10.1.2.3", "203.0.113.5", "203.0.113.5"),
        ("192.0.2.1", "203.0.113.5", "203.0.113.5"),
        ("2001:db8:1::9", "2001:db8:2::5", "2001:db8:2::5"),
        ("10.1.2.3", "203.0.113.5, 192.0.2.1,10.9.9.9", "203.0.113.5"),
        ("10.1.2.3", "", "10.1.2.3"),
        # What the client itself has put before it does not count.
        ("10.1.2.3", "10.5.5.5, 1.1.1.1, 203.0.113.5", "203.0.113.5"),
        ("10.1.2.3", "1.1.1.1, 203.0.113.5, 192.0.2.1", "203.0.113.5"),
        # All are trusted.
        ("10.1.2.3", "10.0.0.1, 10.0.0.2", "10.0.0.1"),
        # As proxies write it.
        ("10.1.2.3", "  203.0.113.5  ", "203.0.113.5"),
        ("10.1.2.3", "203.0.113.5:51234", "203.0.113.5"),
        ("10.1.2.3", "[2001:db8:2::5]:443", "2001:db8:2::5"),
        ("10.1.2.3", "[2001:db8:2::5]", "2001:db8:2::5"),
        ("10.1.2.3", "2001:DB8:2:0::5", "2001:db8:2::5"),
        ("10.1.2.3", "::ffff:203.0.113.5", "203.0.113.5"),
        ("::ffff:10.1.2.3", "203.0.113.5", "203.0.113.5"),
        ("fe80::1%eth0", "203.0.113.5", "fe80::1"),
        # What is no address ends the search where it still was certain.
        ("10.1.2.3", "203.0.113.5, unknown", "10.1.2.3"),
        ("10.1.2.3", "203.0.113.5, , 10.0.0.1", "10.0.0.1"),
        ("10.1.2.3", "203.0.113.5,", "10.1.2.3"),
        ("10.1.2.3", "_hidden", "10.1.2.3"),
        ("10.1.2.3", UNIX, "10.1.2.3"),
        ("10.1.2.3", "203.0.113.5:", "10.1.2.3"),
        ("10.1.2.3", "203.0.113.5:http", "10.1.2.3"),
        ("10.1.2.3", "203.0.113.5:1234567", "10.1.2.3"),
        ("10.1.2.3", "[2001:db8:2::5", "10.1.2.3"),
        ("10.1.2.3", "[2001:db8:2::5]x", "10.1.2.3"),
        ("10.1.2.3", "fe80::1%a b", "10.1.2.3"),
        ("10.1.2.3", "203.0.113.005", "10.1.2.3"),
        ("10.1.2.3", "٢٠٣.0.113.5", "10.1.2.3"),
    ],
)
def test_client(peer: str, forwarded: str, client: str) -> None:
    assert TRUSTED.client(peer, forwarded) == client


def test_unix() -> None:
    assert WITH_UNIX.client(UNIX, "203.0.113.5, 10.0.0.1") == "203.0.113.5"
    assert WITH_UNIX.client(UNIX, "") == UNIX
    assert WITH_UNIX.client("198.51.100.7", "203.0.113.5") == "198.51.100.7"


@given(st.text(alphabet="0123456789abcdef:.,[]% x", max_size=60))
def test_any_header_gives_an_address(forwarded: str) -> None:
    client = TRUSTED.client("10.1.2.3", forwarded)
    assert not set(client) & set(", %[]")
    assert TRUSTED.client("198.51.100.7", forwarded) == "198.51.100.7"
