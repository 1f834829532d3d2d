"""Which proxies in front of the server are believed about their clients."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

__all__ = ["UNIX", "ProxyError", "TrustedProxies"]

UNIX: Final = "unix"
"""Stands for whoever comes over a Unix socket, where there are no addresses."""

_PORTS: Final = 6
"""The most that ``:port`` may have, in characters."""


class ProxyError(ValueError):
    """No address, no network and not `UNIX`; the text says what one looks like."""


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """Finds the client of a request in what proxies say, as far as they can be believed."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    is_unix_trusted: bool = False

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "TrustedProxies":
        """Read addresses, networks such as ``10.0.0.0/8``, and ``unix``. Raises ProxyError."""
        networks = []
        is_unix_trusted = False
        for text in texts:
            if text == UNIX:
                is_unix_trusted = True
                continue
            try:
                networks.append(ip_network(text))
            except ValueError as error:
                raise ProxyError(
                    f"{error}: give an IP address, a network such as 10.0.0.0/8, or {UNIX}"
                ) from None
        return cls(tuple(networks), is_unix_trusted)

    def client(self, peer: str, forwarded: str) -> str:
        """Tell whose request it is: an IP address, or `UNIX`.

        `peer` is the other end of the connection, `forwarded` the X-Forwarded-For of the
        request: each proxy appends whom it was asked by, so that only what trusted proxies have
        appended, from the right, is more than a claim. The client is the last one that is not
        itself a trusted proxy; if all are, the first. What is no address ends the search.
        """
        client = _address(peer.partition("%")[0]) or peer  # a link's own address names its link
        for text in reversed(forwarded.split(",")):
            if not self._trusts(client):
                break
            address = _address(text.strip())
            if address is None:
                break
            client = address
        return str(client)

    def _trusts(self, client: IPv4Address | IPv6Address | str) -> bool:
        if isinstance(client, str):
            return self.is_unix_trusted and client == UNIX
        return any(client in network for network in self.networks)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address as proxies write it: alone, in brackets, or with a port behind it."""
    if text.startswith("["):
        text, bracket, port = text[1:].partition("]")
        is_plain = bracket != "" and (not port or (port[0] == ":" and _is_port(port[1:])))
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        is_plain = _is_port(port)
    else:
        is_plain = True
    try:
        address = ip_address(text) if is_plain and "%" not in text else None
    except ValueError:
        return None
    # A socket for both kinds sees IPv4 clients so.
    return getattr(address, "ipv4_mapped", None) or address


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < _PORTS
