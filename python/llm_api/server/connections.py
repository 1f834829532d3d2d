"""Tornado's HTTP server, for HTTP/2 as well, with a limit on its connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final, cast

from tornado.http1connection import HTTP1Connection, HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError

from llm_api.proxies import UNIX
from llm_api.server.accepting import Acceptor
from llm_api.server.goodbye import Goodbyes
from llm_api.server.http1 import Http1Reader, last_reply
from llm_api.server.http2 import (
    Context,
    Http2Connection,
    RewindableStream,
    Turns,
    is_http2,
    turn_away,
)
from llm_api.server.ledger import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from tornado.httputil import (
        HTTPConnection,
        HTTPMessageDelegate,
        HTTPServerConnectionDelegate,
    )

    from llm_api.limits import Limits
    from llm_api.server.exchange import Exchange

_HARD_HEADER_FACTOR: Final = 8
_NO_LIMIT: Final = 1 << 62
_NO_TIME_LIMIT: Final = 1e9
_TURN_AWAY_SECONDS: Final = 1.0
_TEXT: Final = "too many connections"


class LimitedHTTPServer(HTTPServer):
    """Serves a number of connections and tells the next one, without reading it, to come back."""

    def initialize(  # type: ignore[override]
        self,
        delegate: HTTPServerConnectionDelegate,
        *,
        limits: Limits,
        on_refusal: Callable[[str], None],
        **options: Any,  # noqa: ANN401 - Tornado's own options
    ) -> None:
        """Set up; Tornado calls this in place of a constructor.

        `on_refusal` is told the reason where no request comes about that could be refused.
        """
        super().initialize(
            delegate,
            # The app answers what is over the limit; what is over this is cut off.
            max_header_size=limits.headers * _HARD_HEADER_FACTOR,
            # All times are watched elsewhere, with an answer: by `Http1Reader` and the app.
            idle_connection_timeout=_NO_TIME_LIMIT,
            body_timeout=None,
            max_body_size=_NO_LIMIT,  # here too the app has its own, with an answer
            **options,
        )
        self.limits = limits
        self.on_refusal = on_refusal
        self._open = 0
        self._new: set[IOStream] = set()
        self._http2: set[Http2Connection] = set()
        self._turns = Turns()
        self._goodbyes = Goodbyes()
        self._readers: dict[IOStream, Http1Reader] = {}

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Accept connections from these sockets."""
        for listening in sockets:
            self._sockets[listening.fileno()] = listening
            self._handlers[listening.fileno()] = Acceptor(listening, self._handle_connection).stop

    def handle_stream(  # type: ignore[override]
        self, stream: IOStream, address: tuple[Any, ...]
    ) -> Coroutine[Any, Any, None]:
        """Take a new connection."""
        if self._open >= self.limits.connections:
            self.on_refusal("too_many_connections")
            return self._turn_away(stream)
        self._open += 1
        return self._serve(stream, address)

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        """Take the next request of a connection, whichever the protocol."""
        exchange = super().start_request(server_conn, request_conn)
        if isinstance(request_conn, HTTP1Connection):
            return self._readers[request_conn.stream].begin(cast("Exchange", exchange))
        return exchange

    def on_close(self, server_conn: object) -> None:
        """Count an HTTP/1 connection that has closed."""
        self._open -= 1
        assert isinstance(server_conn, HTTP1ServerConnection)
        del self._readers[server_conn.stream]
        super().on_close(server_conn)

    def shut_down_http2(self) -> None:
        """Ask the clients of HTTP/2 connections for no more requests."""
        for connection in self._http2:
            connection.shut_down()

    async def close_all_connections(self) -> None:
        """Close all connections."""
        for stream in tuple(self._new):
            stream.close()
        await asyncio.gather(*(connection.close() for connection in self._http2))
        await super().close_all_connections()
        self._goodbyes.cut()

    async def _serve(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        is_secure = isinstance(stream, SSLIOStream)
        if not is_secure:
            stream = RewindableStream(stream.socket)
        self._new.add(stream)
        deadline = asyncio.get_running_loop().time() + self.limits.header_timeout
        try:
            async with asyncio.timeout_at(deadline):
                has_http2 = await is_http2(stream)
        except (StreamClosedError, ssl.SSLError, OSError, TimeoutError):
            stream.close()
            self._open -= 1
            return
        finally:
            self._new.discard(stream)
        family = stream.socket.family
        peer = UNIX if family == socket.AF_UNIX else str(address[0])
        if not has_http2:
            self._readers[stream] = Http1Reader(stream, peer, deadline, self)
            super().handle_stream(stream, address)
            return
        context = Context(peer, "https" if is_secure else "http", family)
        connection = Http2Connection(stream, context, self, self.limits, self._turns)
        self._http2.add(connection)
        try:
            await connection.serve()
        finally:
            self._http2.discard(connection)
            self._open -= 1

    def say_goodbye(self, stream: IOStream) -> None:
        """Let a connection end in peace, which counts until then."""
        goodbye = self._goodbyes.say(stream)
        if goodbye is not None:
            self._open += 1
            goodbye.add_done_callback(self._note_goodbye)

    def _note_goodbye(self, _: object) -> None:
        self._open -= 1

    async def _turn_away(self, stream: IOStream) -> None:
        with contextlib.suppress(StreamClosedError, OSError, TimeoutError):
            async with asyncio.timeout(_TURN_AWAY_SECONDS):
                if isinstance(stream, SSLIOStream) and await is_http2(stream):
                    await stream.write(turn_away(_TEXT.encode()))
                else:
                    status = "503 Service Unavailable"
                    await stream.write(last_reply(status, _TEXT, Record().id, "Retry-After: 1\r\n"))
            self._goodbyes.say(stream)
        stream.close()
