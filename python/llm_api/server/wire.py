"""What a reply needs from its connection that Tornado's HTTPConnection has no name for."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Protocol, cast

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPConnection

from llm_api.proxies import UNIX

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, for no time


class SharedConnection(Protocol):
    """A connection that shares its socket with others, and knows itself how to break off."""

    def abort(self) -> None:
        """Break the reply off, other replies on the same socket unharmed."""

    def hold(self, size: int) -> bool:
        """Count bytes of a body that is kept until it is whole; False if they are too many."""


def abort(connection: HTTPConnection, version: str) -> None:
    """Break a reply off so that no client can take what it has for the whole.

    HTTP/1.1 clients miss the last chunk. HTTP/1.0 has no mark for the end but the end of the
    connection, so there it must not end but be reset. A Unix socket knows no reset: there
    `Reply.must_be_whole` sees to it that nothing is sent that might have to be broken off.
    """
    if not isinstance(connection, HTTP1Connection):
        cast("SharedConnection", connection).abort()
        return
    stream = connection.stream
    if version == "HTTP/1.0" and not stream.closed():
        with contextlib.suppress(OSError):
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    connection.close()


def is_unix(connection: HTTPConnection) -> bool:
    """Tell whether a connection came over a Unix socket, from this very machine.

    Its other end has no IP address, and its file says by its mode who may connect.
    """
    # Tornado's connections and ours have a context, though their base class has none.
    return bool(connection.context.address_family == socket.AF_UNIX)  # type: ignore[attr-defined]


def peer(connection: HTTPConnection) -> str:
    """Return the IP address of a connection's other end, `UNIX` where it has none."""
    if is_unix(connection):
        return UNIX
    return str(connection.context.remote_ip)  # type: ignore[attr-defined]


def has_room(connection: HTTPConnection, size: int) -> bool:
    """Tell whether so much more of the body may be kept. On HTTP/1 there is but one body."""
    if isinstance(connection, HTTP1Connection):
        return True
    return cast("SharedConnection", connection).hold(size)


def is_closed(connection: HTTPConnection) -> bool:
    """Tell whether the client of an HTTP/1 connection is known to have gone."""
    return isinstance(connection, HTTP1Connection) and connection.stream.closed()


def close(connection: HTTPConnection) -> None:
    """Close an HTTP/1 connection after a reply that ends with it."""
    assert isinstance(connection, HTTP1Connection)
    connection.close()


def send_small_pieces_at_once(connection: HTTPConnection) -> None:
    """Turn Nagle's algorithm off for this reply; Tornado turns it on again after it."""
    if isinstance(connection, HTTP1Connection):
        connection.stream.set_nodelay(True)
