"""Where to serve, as the -addr option says it."""

import os
from dataclasses import dataclass
from typing import Final

__all__ = ["Address", "AddressError", "UnixAddress", "parse_address", "parse_mode"]

_PORT_MAX: Final = 65_535
_UNIX: Final = "unix:"
_PATH_BYTES_MAX: Final = 107
"""What sockaddr_un holds, less the zero at its end (unix(7))."""


class AddressError(ValueError):
    """No address; the text says what one looks like."""


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP port. An empty host stands for all interfaces, port 0 for any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket: its path, and the mode that its file gets, from 0 to 0o777."""

    path: str
    mode: int

    def __str__(self) -> str:
        return f"{_UNIX}{self.path}"


def parse_address(text: str, socket_mode: int) -> Address | UnixAddress:
    """Read ``host:port``, ``:port``, ``[::1]:port`` or ``unix:path``. Raises AddressError."""
    if text.startswith(_UNIX):
        return UnixAddress(_check_path(text.removeprefix(_UNIX)), socket_mode)
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or (":" in host and not bracketed):
        raise AddressError("must be host:port, [IPv6 address]:port, :port or unix:path")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= _PORT_MAX):
        raise AddressError(f"the port must be a number from 0 to {_PORT_MAX}")
    return Address(host[1:-1] if bracketed else host, int(port))


def parse_mode(text: str) -> int:
    """Read the mode of a file in octal digits, as chmod takes it. Raises AddressError."""
    digits = text.removeprefix("0o")
    if not 1 <= len(digits) <= 4 or not set(digits) <= set("01234567") or int(digits, 8) > 0o777:
        raise AddressError("must be a file mode in octal digits, such as 0600 or 0660")
    return int(digits, 8)


def _check_path(path: str) -> str:
    size = len(os.fsencode(path))
    if not path or "\0" in path:
        raise AddressError("must name a file after unix:")
    if size > _PATH_BYTES_MAX:
        raise AddressError(
            f"the path has {size} bytes: shorten it to {_PATH_BYTES_MAX}, which a Unix socket takes"
        )
    return path
