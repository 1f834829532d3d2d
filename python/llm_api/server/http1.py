"""What Tornado's reading of HTTP/1 lacks: an answer to what comes too late or is malformed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol

from tornado.httputil import HTTPMessageDelegate
from tornado.iostream import IOStream, UnsatisfiableReadError

from llm_api.server.ledger import Record
from llm_api.server.reply import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from tornado.httputil import HTTPHeaders, RequestStartLine, ResponseStartLine

    from llm_api.limits import Limits
    from llm_api.server.exchange import Exchange

_BARE_400: Final = b"HTTP/1.1 400 Bad Request\r\n\r\n"
"""What Tornado writes for bytes that are not HTTP."""


def last_reply(status: str, text: str, request_id: str, headers: str = "") -> bytes:
    """Write out a reply for a connection that has no request, and closes after it."""
    return (
        f"HTTP/1.1 {status}\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(text) + 1}\r\n"
        "Connection: close\r\n"
        f"{headers}"
        f"X-Request-Id: {request_id}\r\n"
        f"\r\n{text}\n"
    ).encode()


class Owner(Protocol):
    """What the reader asks of the server whose connection it watches."""

    limits: Limits
    on_refusal: Callable[[str], None]
    """Told the reason where there is no request that could be refused."""

    def say_goodbye(self, stream: IOStream) -> None:
        """Called before a close that the client may not expect."""


class Http1Reader:
    """Watches over what is read on one connection, request by request.

    It puts itself between Tornado's connection and its stream: a request is late by the bytes
    that come, and only the stream sees those.
    """

    def __init__(self, stream: IOStream, peer: str, deadline: float, owner: Owner) -> None:
        """Watch a new connection, whose first headers have to be there at `deadline`."""
        self.exchange: Exchange | None = None
        """The request whose headers have been read, and whose body has not."""
        self._stream = stream
        self._peer = peer
        self._limits = owner.limits
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._deadline: float | None = deadline
        self._timer: asyncio.TimerHandle | None = None
        self._has_bytes = False
        """Some of the next request are there."""
        self._has_ended = False
        """The last reply has been written, to no request."""
        self._write, self._close, self._read = stream.write, stream.close, stream.read_from_fd
        stream.write = self._write_explained  # type: ignore[method-assign]
        stream.close = self._close_explained  # type: ignore[method-assign]
        stream.read_from_fd = self._read_noted  # type: ignore[method-assign]

    def begin(self, exchange: Exchange) -> HTTPMessageDelegate:
        """Wait for the next request."""
        buffered = self._stream._read_buffer_size
        self._has_bytes = buffered > 0
        if self._deadline is None and not self._has_bytes:
            self._set_timer(self._loop.time() + self._limits.idle_timeout)
        else:
            self._set_timer(self._deadline or self._loop.time() + self._limits.header_timeout)
        self._deadline = None
        return _Watched(self, exchange)

    def stop_timer(self) -> None:
        """Wait for no more headers."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, at: float) -> None:
        self.stop_timer()
        # Tornado asks for the next request of a closed connection too; a timer would hold it.
        if not self._stream.closed():
            self._timer = self._loop.call_at(at, self._time_out)

    def _read_noted(self, buf: bytearray | memoryview) -> int | None:
        size = self._read(buf)
        if size and self._timer is not None and not self._has_bytes:
            self._has_bytes = True
            self._set_timer(self._loop.time() + self._limits.header_timeout)
        return size

    def _time_out(self) -> None:
        if self._has_bytes and not self._stream.closed():
            text = f"the headers did not come in time: send them within {self._seconds}"
            self._owner.on_refusal("late")
            self._write(self._last_reply(408, "Request Timeout", text))
        self._stream.close()

    @property
    def _seconds(self) -> str:
        return f"{self._limits.header_timeout:g} s"

    def _last_reply(self, status: int, reason: str, text: str) -> bytes:
        record = Record(client=self._peer)
        record.status = status
        record.close()
        self._has_ended = True
        return last_reply(f"{status} {reason}", text, record.id)

    def _write_explained(self, data: bytes | memoryview) -> asyncio.Future[None]:
        if data != _BARE_400:
            return self._write(data)
        if self.exchange is None:
            self._owner.on_refusal("malformed")
            return self._write(self._last_reply(400, "Bad Request", "not a valid HTTP request"))
        self._refuse_body(self.exchange)
        done = self._loop.create_future()
        done.set_result(None)
        return done

    def _close_explained(self, exc_info: Any = False) -> None:  # noqa: ANN401 - Tornado's own type
        if isinstance(exc_info, UnsatisfiableReadError):  # no end in sight
            if self.exchange is not None:
                self._refuse_body(self.exchange)
            else:
                text = f"the headers are too large: at most {self._limits.headers} bytes are read"
                self._write(self._last_reply(431, "Request Header Fields Too Large", text))
        self.stop_timer()
        if self._has_ended or (self.exchange is not None and self.exchange.is_refused):
            self._owner.say_goodbye(self._stream)
        self._close(exc_info)

    def _refuse_body(self, exchange: Exchange) -> None:
        exchange.give_up(Refusal(400, "not a valid HTTP request: the chunks of its body"))


class _Watched(HTTPMessageDelegate):
    """Tells the reader of the connection how far the request has come."""

    def __init__(self, reader: Http1Reader, exchange: Exchange) -> None:
        self._reader = reader
        self._exchange = exchange

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> None:
        self._reader.stop_timer()
        self._reader.exchange = self._exchange
        self._exchange.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> None:
        self._exchange.data_received(chunk)

    def finish(self) -> None:
        self._reader.exchange = None
        self._exchange.finish()

    def on_connection_close(self) -> None:
        self._reader.exchange = None
        self._exchange.on_connection_close()
