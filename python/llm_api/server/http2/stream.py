"""One request and its reply on an HTTP/2 connection."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from h2.errors import ErrorCodes
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import StreamClosedError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from tornado.httputil import HTTPMessageDelegate

    from llm_api.limits import Limits

_log: Final = logging.getLogger("llm_api.server")

VERSION: Final = "HTTP/2"

Fields = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Context:
    """Whose request it is, as Tornado's requests look for it."""

    remote_ip: str
    protocol: str
    address_family: int


class Sender(Protocol):
    """What a stream asks of its connection."""

    loop: asyncio.AbstractEventLoop
    limits: Limits
    context: Context

    def send_headers(self, stream: Http2Stream, fields: Fields) -> None:
        """Send a header block at the end of this turn of the loop."""

    def send_later(self, stream: Http2Stream) -> None:
        """Send what the stream has, at the end of this turn or when the client takes it."""

    def reserve(self, stream: Http2Stream, size: int) -> bool:
        """Set room for more data aside in what is sent at the end of this turn, if there is."""

    def reset(self, stream: Http2Stream, code: ErrorCodes) -> None:
        """Send RST_STREAM, after what can be sent before it."""

    def hold(self, size: int) -> bool:
        """Count bytes of bodies that are kept; False, and they are not counted, if too many."""

    def forget(self, stream: Http2Stream) -> None:
        """Note that a stream is over."""


class Http2Stream(HTTPConnection):
    """Behind the interface of Tornado's HTTP/1 connections, so that the rest sees one kind.

    Data waits in `unsent` for the connection to take it. A write is done when it is certain to
    be sent at the end of this turn of the event loop, else when the connection has taken all.
    """

    def __init__(self, connection: Sender, stream_id: int) -> None:
        self.id = stream_id
        self.context = connection.context
        """Where Tornado's HTTPServerRequest looks for the client's address."""
        self.unsent = bytearray()
        self.is_ending = False
        """Nothing more will be written."""
        self.is_open = True
        """Neither ended nor reset nor lost."""
        self.is_read = False
        """The request has been read to its end."""
        self.is_queued = False
        """Owned by the connection: the stream is in its queue."""
        self._connection = connection
        self._held = 0
        self._delegate: HTTPMessageDelegate
        self._taken: asyncio.Future[None] | None = None
        self._close_callback: Callable[[], None] | None = None
        self._timers: list[asyncio.TimerHandle] = []

    # The request, as the connection tells of it.

    def begin(
        self,
        fields: Iterable[tuple[bytes, bytes]],
        delegate: HTTPMessageDelegate,
        *,
        has_body: bool,
    ) -> None:
        """Take the header block of the request."""
        self._delegate = delegate
        try:
            start_line, headers = _request_head(fields, has_body=has_body)
        except HTTPInputError:
            self._connection.reset(self, ErrorCodes.PROTOCOL_ERROR)
            return
        self._call(lambda: delegate.headers_received(start_line, headers))
        is_wanted = self.is_open and not self.is_ending
        if has_body and is_wanted and headers.get("Expect") == "100-continue":
            self._connection.send_headers(self, [(b":status", b"100")])

    def take_data(self, data: bytes) -> None:
        """Take a piece of the request's body."""
        if not self.is_ending:
            self._call(lambda: self._delegate.data_received(data))

    def end_request(self) -> None:
        """Take the end of the request."""
        self.is_read = True
        if not self.is_ending:
            self._stop_timers()
            self._call(self._delegate.finish)
        self._let_go()

    def lose(self) -> None:
        """Tell everybody that the client has given the request up, or the connection is gone."""
        if not self.is_open:
            return
        self.close()
        if not self.is_read:
            self._call(self._delegate.on_connection_close)
        callback, self._close_callback = self._close_callback, None
        if callback is not None:
            self._call(callback)

    # The reply: the interface of HTTP1Connection.

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """Call back when the client gives up before the reply has ended."""
        self._close_callback = callback

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
        chunk: bytes | None = None,
    ) -> asyncio.Future[None]:
        """Begin the reply; see `write`."""
        assert isinstance(start_line, ResponseStartLine)
        self._let_go()
        if self.is_open:
            fields = [(b":status", b"%d" % start_line.code)]
            for name, value in headers.get_all():
                fields.append((name.lower().encode("ascii"), value.encode("latin-1")))
            self._connection.send_headers(self, fields)
        return self.write(chunk or b"")

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        """Send more of the reply. The future is done when the connection has all of it."""
        if not self.is_open:
            return self._done(StreamClosedError())
        if not chunk:
            return self._done()
        is_at_once = self._taken is None and self._connection.reserve(self, len(chunk))
        self.unsent += chunk
        self._connection.send_later(self)
        if is_at_once:
            return self._done()
        if self._taken is None:
            self._taken = self._connection.loop.create_future()
        return self._taken

    def finish(self) -> None:
        """End the reply. If the request is not read to its end, no more of it is taken."""
        if self.is_open:
            self.is_ending = True
            self._close_callback = None
            self._start_timer(self._connection.limits.write_stall)
            self._connection.send_later(self)

    def abort(self) -> None:
        """Break the reply off; the other streams of the connection go on."""
        if self.is_open:
            self._connection.reset(self, ErrorCodes.INTERNAL_ERROR)

    def hold(self, size: int) -> bool:
        """Count bytes of the body that are kept until it is whole; False if they are too many."""
        if not self._connection.hold(size):
            return False
        self._held += size
        return True

    def _let_go(self) -> None:
        self._connection.hold(-self._held)
        self._held = 0

    # What the connection has done about it.

    def note_taken(self) -> None:
        """All that was written is on its way."""
        if self._taken is not None:
            self._taken.set_result(None)
            self._taken = None

    def close(self) -> None:
        """The end of the reply or RST_STREAM is on its way, or the client gave up."""
        self.is_open = False
        self._let_go()
        self.unsent.clear()
        self._stop_timers()
        if self._taken is not None:
            self._taken.set_exception(StreamClosedError())
            self._taken.exception()  # nobody needs to look at it
            self._taken = None
        self._connection.forget(self)

    def _start_timer(self, seconds: float) -> None:
        self._timers.append(self._connection.loop.call_later(seconds, self._time_out))

    def _stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _time_out(self) -> None:
        self._connection.reset(self, ErrorCodes.CANCEL)
        if not self.is_read:
            self._call(self._delegate.on_connection_close)

    def _call(self, function: Callable[[], object]) -> None:
        try:
            function()
        except Exception:
            _log.exception("a request failed")
            self.abort()

    def _done(self, error: Exception | None = None) -> asyncio.Future[None]:
        future = self._connection.loop.create_future()
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
            future.exception()  # nobody needs to look at it
        return future


def _request_head(
    fields: Iterable[tuple[bytes, bytes]], *, has_body: bool
) -> tuple[RequestStartLine, HTTPHeaders]:
    """Make Tornado's form of a request out of HTTP/2's. Raises HTTPInputError."""
    pseudo: dict[bytes, str] = {}
    headers = HTTPHeaders()
    for name, value in fields:
        text = value.decode("latin-1")
        if name.startswith(b":"):
            pseudo[name] = text
        else:
            headers.add(name.decode("latin-1"), text)
    if b":path" not in pseudo:
        raise HTTPInputError("no :path")
    if b":authority" in pseudo:
        headers["Host"] = pseudo[b":authority"]
    if "Content-Length" not in headers:
        if has_body:
            # In the words of HTTP/1: there is a body, and only its end will tell how long it is.
            headers["Transfer-Encoding"] = "chunked"
    elif not has_body and headers["Content-Length"].strip("0"):
        raise HTTPInputError("a Content-Length and no body")
    return RequestStartLine(pseudo[b":method"], pseudo[b":path"], VERSION), headers
