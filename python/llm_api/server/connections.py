"""Tornado's HTTP server with a limit on its connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any, Final

from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError

from llm_api.server.ledger import Record

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tornado.httputil import HTTPServerConnectionDelegate
    from tornado.iostream import IOStream

_GOODBYE_SECONDS: Final = 1.0
_READ_BYTES: Final = 64 << 10
_TEXT: Final = b"too many connections\n"
_TURNED_AWAY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\n"
    b"Connection: close\r\n"
    b"Retry-After: 1\r\n"
    b"X-Request-Id: %b\r\n"
    b"\r\n%b"
)


class LimitedHTTPServer(HTTPServer):
    """Serves a number of connections and tells the next one, without reading it, to come back."""

    def initialize(  # type: ignore[override]
        self,
        delegate: HTTPServerConnectionDelegate,
        *,
        max_connections: int,
        **options: Any,  # noqa: ANN401 - Tornado's own options
    ) -> None:
        """Set up; Tornado calls this in place of a constructor."""
        super().initialize(delegate, **options)
        self._max_connections = max_connections
        self._open = 0

    def handle_stream(  # type: ignore[override]
        self, stream: IOStream, address: tuple[Any, ...]
    ) -> Coroutine[Any, Any, None] | None:
        """Take a new connection."""
        if self._open >= self._max_connections:
            return _turn_away(stream)
        self._open += 1
        super().handle_stream(stream, address)
        return None

    def on_close(self, server_conn: object) -> None:
        """Count a connection that has closed."""
        self._open -= 1
        super().on_close(server_conn)


async def _turn_away(stream: IOStream) -> None:
    # Closing with unread data would reset the connection, and the client might never see the
    # reply: end our side, then read until it ends the other, for a moment.
    with contextlib.suppress(StreamClosedError, OSError, TimeoutError):
        await stream.write(_TURNED_AWAY % (len(_TEXT), Record().id.encode(), _TEXT))
        stream.socket.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(_GOODBYE_SECONDS):
            while True:
                await stream.read_bytes(_READ_BYTES, partial=True)
    stream.close()
