"""How many requests of one client are served at the same time."""

from __future__ import annotations

from collections import Counter
from functools import partial
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final

from llm_api.server.reply import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

_IPV6_PREFIX: Final = 64
"""So many bits of an IPv6 address are given to a client; the others it chooses itself."""


class Shares:
    """Counts the requests at work or waiting by client address, up to a limit; 0 is none."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken: Counter[str] = Counter()

    def take(self, address: str) -> Callable[[], None]:
        """Count one more until the function returned is called. Raises Refusal."""
        if self._limit == 0:
            return _nothing
        client = _client(address)
        if self._taken[client] >= self._limit:
            raise Refusal(
                429,
                f"{self._limit} requests of this client are being served: wait until one ends",
                {"Retry-After": "1"},
            )
        self._taken[client] += 1
        return partial(self._give_back, client)

    def _give_back(self, client: str) -> None:
        self._taken[client] -= 1
        if not self._taken[client]:
            del self._taken[client]


def _client(address: str) -> str:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((parsed, _IPV6_PREFIX), strict=False))


def _nothing() -> None:
    pass
