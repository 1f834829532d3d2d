"""Host names and origins, as options give them and as clients show them."""

import contextlib
import re
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address
from typing import Final

__all__ = ["host_name", "is_loopback", "parse_hosts", "parse_origins"]

_AUTHORITY: Final = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._~%!$&'()*+;=-]+)(?::\d*)?")
_DNS_NAME: Final = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*"
_NAME: Final = re.compile(rf"\[[0-9a-f:.]+\]|{_DNS_NAME}")
_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    rf"(?P<name>{_DNS_NAME}\.?|\[(?P<address>[0-9a-f:.]+)\])"
    r"(?::(?P<port>\d{1,5}))?"
)
_URL: Final = re.compile(r"(?:([^/?#]+)://)?(?:[^/?#@]*@)?([^/?#]*)")
_USUAL_PORTS: Final = {"http": 80, "https": 443}
_MAX_PORT: Final = (1 << 16) - 1


def parse_hosts(values: Iterable[str]) -> frozenset[str]:
    """Read host names, several in a value with commas between. Raises ValueError."""
    names = set()
    for name in _split(values):
        if not _NAME.fullmatch(name):
            raise ValueError(f'"{name}" must be a host name or address, without scheme and port')
        names.add(name)
    return frozenset(names)


def parse_origins(values: Iterable[str]) -> frozenset[str]:
    """Read origins, several in a value with commas between. Raises ValueError."""
    origins = set()
    for text in _split(values):
        origin = _origin(text)
        if origin is None:
            raise ValueError(f'"{text}" must be one exact origin, as {_likely(text)}')
        origins.add(origin)
    return frozenset(origins)


def _origin(text: str) -> str | None:
    """Write an origin as browsers do; None if it is none."""
    parts = _ORIGIN.fullmatch(text)
    if parts is None:
        return None
    scheme, name, port = parts["scheme"], parts["name"], parts["port"]
    if parts["address"]:
        try:
            name = f"[{IPv6Address(parts['address'])}]"
        except ValueError:
            return None
    if port is None or int(port) == _USUAL_PORTS.get(scheme):
        return f"{scheme}://{name}"
    return f"{scheme}://{name}:{int(port)}" if int(port) <= _MAX_PORT else None


def _likely(text: str) -> str:
    """Find the origin in what somebody took for one."""
    found = _URL.match(text)
    assert found is not None
    scheme, host = found.groups()
    with contextlib.suppress(UnicodeError):
        host = host.encode("idna").decode()
    is_name = scheme is not None or not host.isalnum()
    return (is_name and _origin(f"{scheme or 'https'}://{host}")) or "https://example.com"


def host_name(authority: str) -> str | None:
    """Take the port off a Host header; None if it is none."""
    found = _AUTHORITY.fullmatch(authority.lower())
    return (found["name"].removesuffix(".") or None) if found else None


def is_loopback(name: str) -> bool:
    """Tell whether this is an address, maybe in brackets, that only this machine has."""
    try:
        address = ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _split(values: Iterable[str]) -> Iterable[str]:
    return (part.strip().lower() for value in values for part in value.split(","))
