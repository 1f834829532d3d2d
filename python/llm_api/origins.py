"""Host names and origins, as options give them and as clients show them."""

import re
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

__all__ = ["host_name", "is_loopback", "parse_hosts", "parse_origins"]

_AUTHORITY: Final = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._~%!$&'()*+;=-]+)(?::\d*)?")
_NAME: Final = re.compile(r"\[[0-9a-f:.]+\]|[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_ORIGIN: Final = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#@:]+|\[[0-9a-f:.]+\])(?::(\d{1,5}))?")
_USUAL_PORTS: Final = {"http": "80", "https": "443"}


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
    for origin in _split(values):
        parts = _ORIGIN.fullmatch(origin)
        if parts is None or "*" in origin:
            raise ValueError(f'"{origin}" must be one exact origin, as https://example.com')
        scheme, name, port = parts.groups()
        is_usual = port is None or port == _USUAL_PORTS.get(scheme)
        origins.add(f"{scheme}://{name}" if is_usual else f"{scheme}://{name}:{port}")
    return frozenset(origins)


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
